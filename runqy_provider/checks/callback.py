# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Check webhooks: deliver a result of our own to the receiver, and read it back."""

from __future__ import annotations

import json
import time
import uuid
from typing import TYPE_CHECKING

import requests

from runqy_delivery.signature import sign
from runqy_delivery.sinks.webhook import RECEIVER_FIELDS
from runqy_provider.checks import FAILED, OK, CheckResult
from runqy_provider.client.api import open_session_for
from runqy_provider.errors import NotThere, RunqyError
from runqy_provider.inbox.keys import CHECK_PREFIX
from runqy_provider.inbox.reader import InboxReader
from runqy_provider.sinks.inbox import InboxBackend

if TYPE_CHECKING:
    from runqy_provider.settings import Settings

SUBJECT = "Callback URL"

#: Seconds that the receiver may take to answer.
TIMEOUT = 5.0

#: Seconds for which the callback URL of the check works.
VALID_FOR = 60

OK_STATUS, FORBIDDEN = 200, 403


def check_callback(settings: Settings) -> CheckResult:
    """Deliver a small result as a worker would, from this machine, and read it.

    That shows that the callback URL leads to this receiver, that both sides have the
    same secrets, and that both use the same Redis.
    """
    backend = InboxBackend(settings)
    if backend.config_error is not None:
        return CheckResult(SUBJECT, FAILED, backend.config_error)
    delivery_id = f"{CHECK_PREFIX}{uuid.uuid4().hex}"
    try:
        response = _deliver(settings, backend, delivery_id)
    except requests.RequestException as error:
        return CheckResult(
            SUBJECT,
            FAILED,
            f"{settings.callback_url} cannot be reached from this machine "
            f"({type(error).__name__}). Check callback_url, and that the receiver "
            "(Airflow's API server, or your own receiver) runs. runqy workers must "
            "reach the same address.",
        )
    problem = _problem(settings, response) or _read_back(backend, delivery_id)
    if problem:
        return CheckResult(SUBJECT, FAILED, problem)
    return CheckResult(
        SUBJECT,
        OK,
        f"The receiver at {settings.callback_url} accepted a test result, and it was "
        "read from the inbox. Workers must reach the same address.",
    )


def _deliver(
    settings: Settings, backend: InboxBackend, delivery_id: str
) -> requests.Response:
    """POST a result once; the response is not checked.

    Raises:
        RequestException: There is no response.
    """
    url = backend.webhook_url(delivery_id, time.time() + VALID_FOR)
    body = json.dumps(
        {"task_id": delivery_id, "status": "completed", "result": "check"}
    ).encode()
    headers = {"Content-Type": "application/json"}
    secrets = settings.connection.signing_secrets
    if secrets:
        headers.update(sign(secrets[0], delivery_id, int(time.time()), body))
    with open_session_for(url) as session:
        return session.post(
            url, data=body, headers=headers, timeout=TIMEOUT, allow_redirects=False
        )


def _problem(settings: Settings, response: requests.Response) -> str:
    """Return what is wrong with a response; an empty text if it is accepted."""
    conn_id, url = settings.connection.conn_id, settings.callback_url
    said = _fields(response)
    if RECEIVER_FIELDS.isdisjoint(said):
        return (
            f"{url} answers with status {response.status_code}, but it is not the "
            "receiver: it is another web application, or a login page. Set "
            "callback_url to the receiver's address: that of Airflow's API server "
            "with /runqy at its end."
        )
    if response.status_code == FORBIDDEN:
        return (
            f"The receiver at {url} refused the callback URL of connection "
            f"{conn_id!r}: it has another callback secret (or signing secret), or does "
            "not know that connection. Give both sides the same secret. A receiver of "
            "your own must be started with the id of this connection (--conn-id)."
        )
    if response.status_code != OK_STATUS:
        return (
            f"The receiver at {url} answered {response.status_code}: "
            f"{said.get('error')} See the log of the receiver."
        )
    return ""


def _fields(response: requests.Response) -> dict[str, object]:
    try:
        fields = response.json()
    except requests.JSONDecodeError:
        return {}
    return fields if isinstance(fields, dict) else {}


def _read_back(backend: InboxBackend, delivery_id: str) -> str:
    """Return why a delivery cannot be read; an empty text if it was read."""
    try:
        with InboxReader(backend.redis, backend.namespace) as reader:
            reader.read(delivery_id)
            reader.forget(delivery_id)
    except NotThere:
        return (
            "The receiver accepted a test result, but it is not in the inbox at "
            f"{backend.redis.address}: the receiver uses another Redis than this "
            "connection. Give both the same one."
        )
    except RunqyError as error:
        return str(error)
    return ""
