# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""A call on the wire: sent, answered, and which troubles may be tried again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import httpx

from runqy_provider.errors import NotAllowed, ServerUnavailable
from runqy_provider.server import calls

if TYPE_CHECKING:
    from runqy_provider.settings import RunqySettings

T = TypeVar("T")

#: Seconds that one request may take.
REQUEST_TIMEOUT = 30.0

#: Answers that say: not now. Nothing was enqueued.
NOT_NOW = frozenset({429, 503})

#: What proxies say of a server behind them: whether it took the request is not known.
NO_WORD = frozenset({502, 504})


class Away(ServerUnavailable):
    """The server is away, and trying again does no harm."""


def send(client: httpx.Client, call: calls.Call[T], settings: RunqySettings) -> T:
    """Make a call once.

    Args:
        client: An HTTP session with the server's URL as its base.
        call: What to ask.
        settings: The connection, for its keys and for messages.

    Raises:
        Away: The server is away, and trying again does no harm.
        RunqyError: What the answer means.
    """
    try:
        response = client.request(
            call.method,
            call.path,
            content=call.body,
            headers=headers(call, settings),
        )
    except httpx.TransportError as error:
        raise transport_error(call, settings, error) from error
    return result(call, settings, response)


async def asend(
    client: httpx.AsyncClient, call: calls.Call[T], settings: RunqySettings
) -> T:
    """Make a call once from async code; see send."""
    try:
        response = await client.request(
            call.method,
            call.path,
            content=call.body,
            headers=headers(call, settings),
        )
    except httpx.TransportError as error:
        raise transport_error(call, settings, error) from error
    return result(call, settings, response)


def headers(call: calls.Call[Any], settings: RunqySettings) -> dict[str, str]:
    """Return the headers of a call, with the key that it needs.

    Raises:
        NotAllowed: The connection has no such key.
    """
    fields = {"User-Agent": "airflow-provider-runqy"}
    if call.body is not None:
        fields["Content-Type"] = "application/json"
    if call.needs is None:
        return fields
    # Some run with one key that has the admin role: it may do everything.
    key = settings.admin_key or settings.api_key
    name = "Admin key"
    if call.needs == "client":
        key, name = settings.api_key, "API key (password)"
    if key is None:
        raise NotAllowed(
            f"Cannot {call.what}: connection {settings.conn_id!r} has no {name}."
        )
    fields["Authorization"] = f"Bearer {key}"
    return fields


def result(call: calls.Call[T], settings: RunqySettings, response: httpx.Response) -> T:
    """Return what an answer says, or raise what it means."""
    status = response.status_code
    is_away = status in NOT_NOW or (status in NO_WORD and call.is_repeatable)
    if is_away and call.path != "/healthz":
        raise Away(
            f"runqy at {settings.server_url} could not {call.what} just now: {status}"
        )
    return call.read(calls.Answer(status, response.content))


def transport_error(
    call: calls.Call[Any], settings: RunqySettings, error: httpx.TransportError
) -> ServerUnavailable:
    """Return the error for a request without an answer: Away where it may be resent."""
    where = f"runqy at {settings.server_url} (connection {settings.conn_id!r})"
    words = f"{type(error).__name__}: {error}".rstrip(": ")
    never_sent = isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout))
    if never_sent or call.is_repeatable:
        return Away(
            f"{where} cannot be reached to {call.what}: {words}. Check that the server "
            "runs and that this machine reaches it."
        )
    return ServerUnavailable(
        f"{where} broke off while it was asked to {call.what}: {words}. The job may "
        "have been enqueued; it was not sent again, so that it does not run twice."
    )
