# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Send HTTP requests, and retry those that may succeed later.

The query of a URL may be a secret (a token, a signature), so log and error messages of
this module show URLs without their query.
"""

from __future__ import annotations

import base64
import email.utils
import functools
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException, InvalidURL
from typing import IO, TYPE_CHECKING, Any, Callable

from runqy_delivery._retry import TryAgain, retry_call
from runqy_delivery.errors import DeliveryImpossible, DeliveryUndeliverable
from runqy_delivery.proxy import proxy_for

if TYPE_CHECKING:
    from collections.abc import Mapping

    MakeBody = Callable[[], tuple[bytes | IO[bytes], Mapping[str, str]]]

#: Seconds that one request may take before it counts as failed (runqy's guide).
TIMEOUT = 30.0

#: How much of a response's body is read, in bytes: enough for an error message.
MAX_RESPONSE = 2048

#: HTTP statuses after which the same request may succeed later, and their meaning.
RETRYABLE_STATUSES = {
    408: "the server waited too long for the request",
    425: "the server asks for the request again",
    429: "too many requests",
    500: "internal error of the server",
    502: "a proxy got an invalid response from the server",
    503: "the server is unavailable or busy",
    504: "a proxy got no response from the server in time",
    # Content delivery networks use these if they cannot reach the server: unknown
    # error, refused connection, timeout, unknown host, failed TLS, network errors.
    **dict.fromkeys(range(520, 531), "a proxy could not reach the server"),
}


@dataclass(frozen=True)
class Response:
    """An HTTP response.

    Attributes:
        status: The HTTP status code.
        text: The first ``MAX_RESPONSE`` bytes of the body, decoded.
        retry_after: Seconds that the server asks to wait; None without Retry-After.
    """

    status: int
    text: str
    retry_after: float | None = None


def redact(url: str) -> str:
    """Return a URL without its login and query, which may be secrets."""
    parts = urllib.parse.urlsplit(url)
    host = parts.hostname or ""
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{host}{port}{parts.path}"


def retryable_error(response: Response) -> str | None:
    """Return why a request may succeed later; None for a final response."""
    if response.status not in RETRYABLE_STATUSES:
        return None
    reason = RETRYABLE_STATUSES[response.status]
    return f"{response.status} ({reason}) {response.text[:200]}".strip()


def send_once(
    url: str, body: bytes, headers: Mapping[str, str], timeout: float
) -> str | None:
    """POST a message that may be lost; return the error, or None if there is none.

    Args:
        url: The URL, which may be a secret: the returned error does not repeat it.
        body: The body of the request.
        headers: The headers of the request.
        timeout: Seconds that the request may take.
    """
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        return "the URL is not an http:// or https:// URL"
    try:
        response = _send("POST", url, body, headers, timeout)
    except InvalidURL:
        return "the URL is not valid"  # the exception's message would repeat the URL
    except (OSError, HTTPException, ValueError, DeliveryImpossible) as error:
        return f"{type(error).__name__}: {error}"
    if response.status < 300:  # noqa: PLR2004 - HTTP's successes
        return None
    return f"{response.status} {response.text[:200]}"


def deliver_over_http(
    method: str,
    url: str,
    make_body: MakeBody,
    *,
    is_expired: Callable[[], bool] = lambda: False,
    error_in: Callable[[Response], str | None] = retryable_error,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Response:
    """Send a request until it gets a final response.

    Args:
        method: ``POST`` or ``PUT``.
        url: The URL, ``http`` or ``https``.
        make_body: Returns body and headers; called once per try, because a stream can
            be sent only once, and a signature contains the time.
        is_expired: Called after a try without a response; True stops the retries,
            because the URL is no longer valid. A server that refuses a URL may close
            the connection while a large body is being sent, so its response is lost.
        error_in: Returns the error of a response after which the request is retried;
            None for a final response.
        clock: Returns monotonic seconds; for tests.
        sleep: Pauses for a number of seconds; for tests.

    Returns:
        The final response, whatever its status.

    Raises:
        DeliveryImpossible: The URL, or that of the proxy for it, is not valid.
        DeliveryUndeliverable: There was no final response within the retry budget.
    """
    _check_url(url)
    operation = f"{method} {redact(url)}"

    def send_again() -> Response:
        body, headers = make_body()
        try:
            response = _send(method, url, body, headers)
        except InvalidURL:
            # Without the cause: its message repeats the URL, which may be a secret.
            raise DeliveryImpossible(
                f"{redact(url)!r} in the delivery request is not a valid URL: it "
                "contains a space or another character that must be percent-encoded."
            ) from None
        except (OSError, HTTPException) as error:
            message = f"{type(error).__name__}: {error}"
            if is_expired():
                raise DeliveryUndeliverable(f"{operation} failed: {message}.") from None
            raise TryAgain(message) from None
        finally:
            if not isinstance(body, bytes):
                body.close()
        problem = error_in(response)
        if problem is not None:
            raise TryAgain(problem, response.retry_after)
        return response

    advice = "Check that this machine can reach that URL. "
    return retry_call(operation, send_again, advice=advice, clock=clock, sleep=sleep)


def _check_url(url: str) -> None:
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise DeliveryImpossible(
            f"{redact(url)!r} in the delivery request is not a valid http:// or "
            "https:// URL. Check the connections of the task in Airflow."
        )


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follow no redirect: it turns a POST into a GET, and sends the URL elsewhere."""

    def redirect_request(self, *_args: Any, **_kwargs: Any) -> None:
        return None


@functools.lru_cache(maxsize=1)
def _opener() -> urllib.request.OpenerDirector:
    # Cached, because loading the CA certificates takes tens of milliseconds.
    context = ssl.create_default_context()
    return urllib.request.build_opener(
        _NoRedirect,
        urllib.request.HTTPSHandler(context=context),
        urllib.request.ProxyHandler({}),  # ``_set_proxy`` reads the environment
    )


def _set_proxy(request: urllib.request.Request) -> None:
    """Send a request through the proxy that the environment names for its URL.

    Raises:
        DeliveryImpossible: The environment names a proxy that is not a URL.
    """
    try:
        proxy = proxy_for(request.full_url)
    except ValueError as error:
        raise DeliveryImpossible(
            f"{error} Correct it where the runqy worker is started."
        ) from None
    parts = urllib.parse.urlsplit(proxy or "")
    if parts.scheme not in ("http", "https"):
        return  # none, or one for SOCKS, which urllib cannot use
    if parts.username and parts.password:
        login = map(urllib.parse.unquote, (parts.username, parts.password))
        credentials = base64.b64encode(":".join(login).encode()).decode()
        request.add_header("Proxy-Authorization", f"Basic {credentials}")
    request.set_proxy(parts.netloc.rpartition("@")[2], parts.scheme)


def _send(
    method: str,
    url: str,
    body: bytes | IO[bytes],
    headers: Mapping[str, str],
    timeout: float = TIMEOUT,
) -> Response:
    request = urllib.request.Request(  # noqa: S310 - the scheme is checked by callers
        url, data=body, headers=dict(headers), method=method
    )
    _set_proxy(request)
    try:
        with _opener().open(request, timeout=timeout) as response:
            return Response(response.status, _start_of_body(response))
    except urllib.error.HTTPError as error:
        with error:
            return Response(
                error.code,
                _start_of_body(error),
                _retry_after_seconds(error.headers.get("Retry-After")),
            )


def _start_of_body(response: Any) -> str:
    return str(response.read(MAX_RESPONSE).decode("utf-8", "replace")).strip()


def _retry_after_seconds(value: str | None) -> float | None:
    """Parse a Retry-After header, which is a number of seconds or a date."""
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        when = email.utils.parsedate_to_datetime(value)
    except (TypeError, ValueError):
        return None
    return max(0.0, when.timestamp() - time.time())
