# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Send requests to the runqy server, and decide which errors may be retried."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import httpx
import requests
from requests.exceptions import ConnectTimeout, RequestException, SSLError
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

from runqy_delivery.proxy import proxy_for
from runqy_provider.client import requests as api
from runqy_provider.errors import Misconfigured, NotAllowed, ServerUnavailable

if TYPE_CHECKING:
    from runqy_provider.connections import RunqyConnection

T = TypeVar("T")

#: Seconds that one request may take.
REQUEST_TIMEOUT = 30.0

#: Statuses of a server that is busy: nothing was enqueued.
NOT_NOW = frozenset({429, 503})

#: Statuses of a proxy: it is not known whether the server accepted the request.
GATEWAY_ERRORS = frozenset({502, 504})


class RetryableServerError(ServerUnavailable):
    """The server is unavailable, and the request may be repeated."""


class AnswerLost(ServerUnavailable):
    """A request was sent, and it is not known what the server has made of it."""


def open_session(connection: RunqyConnection) -> requests.Session:
    """Return a session for blocking requests to the server of a connection.

    Raises:
        Misconfigured: The environment names a proxy that is not a URL.
    """
    return open_session_for(connection.server_url)


def open_session_for(url: str) -> requests.Session:
    """Return a session for blocking requests to one address.

    Raises:
        Misconfigured: The environment names a proxy that is not a URL.
    """
    session = requests.Session()
    # A .netrc would replace our key, and requests does not read all of NO_PROXY.
    session.trust_env = False
    found = _proxy_for(url)
    if found is not None:
        session.proxies = {urlsplit(url).scheme: found}
    bundles = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
    session.verify = next((os.environ[n] for n in bundles if os.environ.get(n)), True)
    return session


def open_async_client(
    connection: RunqyConnection, most_connections: int = 10
) -> httpx.AsyncClient:
    """Return a client for async requests to the server of a connection.

    Raises:
        Misconfigured: The environment names a proxy that is not a URL.
    """
    return httpx.AsyncClient(
        base_url=connection.server_url,
        timeout=REQUEST_TIMEOUT,
        limits=httpx.Limits(max_connections=most_connections),
        proxy=_proxy_for(connection.server_url),
        # For the certificates only: httpx does not know networks in NO_PROXY.
        verify=httpx.create_ssl_context(),
        trust_env=False,
    )


def _proxy_for(url: str) -> str | None:
    """Return the proxy for a URL; None: it is reached directly.

    Raises:
        Misconfigured: The environment names a proxy that is not a URL.
    """
    try:
        return proxy_for(url)
    except ValueError as error:
        raise Misconfigured(str(error)) from error


def send(
    session: requests.Session,
    request: api.ApiRequest[T],
    connection: RunqyConnection,
    *,
    timeout: float = REQUEST_TIMEOUT,
) -> T:
    """Send a request once.

    Args:
        session: The session; see ``open_session``.
        request: The request.
        connection: The connection, for its keys and for messages.
        timeout: Seconds that it may take.

    Raises:
        RetryableServerError: The server is unavailable; the request may be repeated.
        RunqyError: The error that the response stands for.
    """
    try:
        response = session.request(
            request.method,
            f"{connection.server_url}{request.path}",
            data=request.body,
            headers=headers(request, connection),
            timeout=timeout,
            allow_redirects=False,
        )
    except RequestException as error:
        raise transport_error(request, connection, error) from None
    return result(request, connection, response.status_code, response.content)


async def asend(
    client: httpx.AsyncClient, request: api.ApiRequest[T], connection: RunqyConnection
) -> T:
    """Send a request once from async code; see ``send``."""
    try:
        response = await client.request(
            request.method,
            request.path,
            content=request.body,
            headers=headers(request, connection),
        )
    except httpx.TransportError as error:
        raise transport_error(request, connection, error) from error
    return result(request, connection, response.status_code, response.content)


def headers(
    request: api.ApiRequest[Any], connection: RunqyConnection
) -> dict[str, str]:
    """Return the headers of a request, with the key that it needs.

    Raises:
        NotAllowed: The connection has no such key.
    """
    fields = {"User-Agent": "airflow-provider-runqy"}
    if request.body is not None:
        fields["Content-Type"] = "application/json"
    if request.needs is None:
        return fields
    # Some deployments have one key, with the admin role: it may do everything.
    key = connection.admin_key or connection.api_key
    name = "Admin key"
    if request.needs == "client":
        key, name = connection.api_key, "API key (password)"
    if key is None:
        raise NotAllowed(
            f"Cannot {request.what}: connection {connection.conn_id!r} has no {name}."
        )
    fields["Authorization"] = f"Bearer {key}"
    return fields


def result(
    request: api.ApiRequest[T], connection: RunqyConnection, status: int, body: bytes
) -> T:
    """Return the result of a response, or raise its error."""
    is_unavailable = status in NOT_NOW or (
        status in GATEWAY_ERRORS and request.is_repeatable
    )
    if is_unavailable and request.path != "/healthz":
        raise RetryableServerError(
            f"runqy at {connection.server_url} could not {request.what} just now: it "
            f"answered {status}."
        )
    try:
        return request.read(api.ApiResponse(status, body))
    except ServerUnavailable as error:
        if status >= api.SERVER_ERROR and not request.is_repeatable:
            raise AnswerLost(str(error)) from error
        raise


def transport_error(
    request: api.ApiRequest[Any],
    connection: RunqyConnection,
    error: httpx.TransportError | RequestException,
) -> ServerUnavailable:
    """Return the error of a request without a response; retryable where it may be."""
    server = f"runqy at {connection.server_url} (connection {connection.conn_id!r})"
    reason = _reason(error)
    if _was_never_sent(error) or request.is_repeatable:
        return RetryableServerError(
            f"{server} cannot be reached to {request.what}: {reason}. Check that the "
            "server runs and that this machine reaches it."
        )
    return AnswerLost(
        f"{server} closed the connection while it was asked to {request.what}: "
        f"{reason}. The job may have been enqueued; the request was not repeated, so "
        "that the job does not run twice."
    )


def _reason(error: BaseException) -> str:
    """Return type and text of the innermost error, which says what happened."""
    while True:
        wrapped = getattr(error.args[0], "reason", None) if error.args else None
        inner = wrapped or error.__cause__ or error.__context__
        if not isinstance(inner, BaseException):
            return f"{type(error).__name__}: {error}".rstrip(":. ")
        error = inner


def _was_never_sent(error: httpx.TransportError | RequestException) -> bool:
    if isinstance(error, httpx.TransportError):
        return isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout))
    # requests has the same error for a failed and for an interrupted connection.
    reason = getattr(error.args[0], "reason", None) if error.args else None
    return isinstance(error, (ConnectTimeout, SSLError)) or isinstance(
        reason, (NewConnectionError, ConnectTimeoutError)
    )
