# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Hide the secrets of a delivery request in a text."""

from __future__ import annotations

import os
import urllib.parse
from typing import TYPE_CHECKING

from runqy_delivery._http import redact
from runqy_delivery.sinks.amqp import URL_VARIABLE as BROKER_VARIABLE
from runqy_delivery.sinks.sql_drivers import URL_VARIABLE as DATABASE_VARIABLE
from runqy_delivery.sinks.webhook import SIGNING_SECRET_VARIABLE

if TYPE_CHECKING:
    from runqy_delivery.wire import DeliveryRequest

#: What is shown instead of a secret.
HIDDEN = "***"

#: Variables (of runqy vaults) that this package reads, and whose values are secrets.
SECRET_VARIABLES = (BROKER_VARIABLE, DATABASE_VARIABLE, SIGNING_SECRET_VARIABLE)

#: Shorter values in the query of a URL are not secrets, and may occur in any text.
MIN_SECRET = 6


class SecretMask:
    """Hides the URLs of a delivery request, their tokens, and the worker's addresses.

    Args:
        request: The delivery request.
    """

    def __init__(self, request: DeliveryRequest) -> None:
        hidden: dict[str, str] = {}
        urls = (
            request.webhook_url,
            request.failure_url,
            request.put_url,
            request.failed_put_url,
        )
        for url in filter(None, urls):
            hidden.update(_secrets_of(url))
        for variable in SECRET_VARIABLES:
            value = os.environ.get(variable, "")
            if len(value) >= MIN_SECRET:
                hidden[value] = f"{HIDDEN} ({variable})"
        # The longest first: a whole URL before the token in it.
        self._hidden = sorted(hidden.items(), key=lambda item: -len(item[0]))

    def hide_in(self, text: str) -> str:
        """Return a text with ``***`` in place of each secret."""
        for secret, replacement in self._hidden:
            text = text.replace(secret, replacement)
        return text


def _secrets_of(url: str) -> dict[str, str]:
    """Return the secret texts of a URL, each with what is shown instead of it."""
    try:
        parts = urllib.parse.urlsplit(url)
        shown = redact(url)
    except ValueError:  # not a URL, which the delivery will report
        return {url: HIDDEN}
    secrets = {}
    if parts.query:
        secrets = {url: f"{shown}?{HIDDEN}", parts.query: HIDDEN}
    raw = [pair.partition("=")[2] for pair in parts.query.split("&")]
    values = [*raw, *map(urllib.parse.unquote_plus, raw), parts.password or ""]
    for value in values:
        if len(value) >= MIN_SECRET and not value.isdigit():
            secrets[value] = HIDDEN
    return secrets
