# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Check a whole runqy connection."""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING

from runqy_provider.airflow_compat import AirflowNotFoundException, get_connection
from runqy_provider.checks.callback import check_callback
from runqy_provider.checks.result import FAILED, WARNING, CheckResult
from runqy_provider.checks.server import check_server
from runqy_provider.checks.sink import check_inbox, check_sink
from runqy_provider.checks.stored import stored_conn_id
from runqy_provider.context import context_of
from runqy_provider.errors import Misconfigured, RunqyError
from runqy_provider.sinks.registry import sink_from_uri

if TYPE_CHECKING:
    from airflow.sdk import Connection

    from runqy_provider.context import SinkContext

#: Sinks whose results go through the inbox.
NEEDS_INBOX = ("webhook", "amqp")

#: Set by Airflow in its API server, and by its commands that read connections.
PROCESS_CONTEXT = "_AIRFLOW_PROCESS_CONTEXT"


def check_connection(conn_id: str) -> list[CheckResult]:
    """Check all that a task needs of a runqy connection; takes some seconds.

    Args:
        conn_id: The runqy connection.

    Returns:
        What each check found. A field that cannot be read ends the checks.
    """
    try:
        connection = get_connection(conn_id)
        context = context_of(_as_stored(connection))
    except AirflowNotFoundException as error:
        return [CheckResult("Connection", FAILED, f"{error} Check its id.")]
    except RunqyError as error:
        return [CheckResult("Connection", FAILED, str(error))]
    return [
        *check_server(context),
        _weigh(context, check_inbox(context)),
        _weigh(context, check_callback(context)),
        check_sink(context),
    ]


def _as_stored(connection: Connection) -> Connection:
    """Return a connection under the id that it is stored with.

    Airflow's Test button gives the hook a copy of the connection under a temporary id,
    which neither the receiver nor the user knows.
    """
    if os.environ.get(PROCESS_CONTEXT) != "server":
        return connection
    conn_id = stored_conn_id(connection)
    if conn_id is not None:
        connection.conn_id = conn_id
    return connection


def _weigh(context: SinkContext, found: CheckResult) -> CheckResult:
    """Return a failed check as a warning where the default sink does not need it."""
    if found.status != FAILED or _needs_inbox(context.connection.sink):
        return found
    message = f"{found.message} (Needed only for the sinks webhook and amqp.)"
    return dataclasses.replace(found, status=WARNING, message=message)


def _needs_inbox(uri: str) -> bool:
    try:
        parts = sink_from_uri(uri).parts
    except Misconfigured:
        return True
    return any(part.uri.startswith(NEEDS_INBOX) for part in parts)
