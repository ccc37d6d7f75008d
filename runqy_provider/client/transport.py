# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""A call on the wire: sent, answered, and which troubles may be tried again."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import httpx
import requests
from requests.exceptions import ConnectTimeout, RequestException, SSLError
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

from runqy_provider.client import requests as calls
from runqy_provider.client.proxy import proxy_for
from runqy_provider.errors import NotAllowed, ServerUnavailable

if TYPE_CHECKING:
    from runqy_provider.connections import RunqySettings

T = TypeVar("T")

#: Seconds that one request may take.
REQUEST_TIMEOUT = 30.0

#: Answers that say: not now. Nothing was enqueued.
NOT_NOW = frozenset({429, 503})

#: What proxies say of a server behind them: whether it took the request is not known.
NO_WORD = frozenset({502, 504})


class Away(ServerUnavailable):
    """The server is away, and trying again does no harm."""


def open_session(settings: RunqySettings) -> requests.Session:
    """Return a session for blocking calls to a connection's server.

    Raises:
        Misconfigured: The environment names a proxy that is not a URL.
    """
    session = requests.Session()
    # A .netrc would replace our key, and NO_PROXY is read in full by ``proxy_for``.
    session.trust_env = False
    proxy = proxy_for(settings.server_url)
    if proxy is not None:
        session.proxies = {urlsplit(settings.server_url).scheme: proxy}
    bundles = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
    session.verify = next((os.environ[n] for n in bundles if os.environ.get(n)), True)
    return session


def open_async_client(
    settings: RunqySettings, most_connections: int = 10
) -> httpx.AsyncClient:
    """Return a client for calls to a connection's server from async code.

    Raises:
        Misconfigured: The environment names a proxy that is not a URL.
    """
    return httpx.AsyncClient(
        base_url=settings.server_url,
        timeout=REQUEST_TIMEOUT,
        limits=httpx.Limits(max_connections=most_connections),
        proxy=proxy_for(settings.server_url),
        # For the certificates only: httpx does not know networks in NO_PROXY.
        verify=httpx.create_ssl_context(),
        trust_env=False,
    )


def send(session: requests.Session, call: calls.Call[T], settings: RunqySettings) -> T:
    """Make a call once.

    Args:
        session: The session; see ``open_session``.
        call: What to ask.
        settings: The connection, for its keys and for messages.

    Raises:
        Away: The server is away, and trying again does no harm.
        RunqyError: What the answer means.
    """
    try:
        response = session.request(
            call.method,
            f"{settings.server_url}{call.path}",
            data=call.body,
            headers=headers(call, settings),
            timeout=REQUEST_TIMEOUT,
            allow_redirects=False,
        )
    except RequestException as error:
        raise transport_error(call, settings, error) from error
    return result(call, settings, response.status_code, response.content)


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
    return result(call, settings, response.status_code, response.content)


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


def result(call: calls.Call[T], settings: RunqySettings, status: int, body: bytes) -> T:
    """Return what an answer says, or raise what it means."""
    is_away = status in NOT_NOW or (status in NO_WORD and call.is_repeatable)
    if is_away and call.path != "/healthz":
        raise Away(
            f"runqy at {settings.server_url} could not {call.what} just now: {status}"
        )
    return call.read(calls.Answer(status, body))


def transport_error(
    call: calls.Call[Any],
    settings: RunqySettings,
    error: httpx.TransportError | RequestException,
) -> ServerUnavailable:
    """Return the error for a request without an answer: Away where it may be resent."""
    where = f"runqy at {settings.server_url} (connection {settings.conn_id!r})"
    words = f"{type(error).__name__}: {error}".rstrip(": ")
    if _was_never_sent(error) or call.is_repeatable:
        return Away(
            f"{where} cannot be reached to {call.what}: {words}. Check that the server "
            "runs and that this machine reaches it."
        )
    return ServerUnavailable(
        f"{where} broke off while it was asked to {call.what}: {words}. The job may "
        "have been enqueued; it was not sent again, so that it does not run twice."
    )


def _was_never_sent(error: httpx.TransportError | RequestException) -> bool:
    if isinstance(error, httpx.TransportError):
        return isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout))
    # requests has one error for a connection that failed and one that broke off.
    reason = getattr(error.args[0], "reason", None) if error.args else None
    return isinstance(error, (ConnectTimeout, SSLError)) or isinstance(
        reason, (NewConnectionError, ConnectTimeoutError)
    )
