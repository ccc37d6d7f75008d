# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""One HTTP request, and the patience to send it again.

URLs carry capabilities, so no message of this module repeats one whole.
"""

from __future__ import annotations

import email.utils
import functools
import logging
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException, InvalidURL
from typing import IO, TYPE_CHECKING, Any, Callable

from runqy_delivery._retry import RETRY_FOR_VARIABLE, asked_delay, delays, retry_budget
from runqy_delivery.errors import DeliveryImpossible, DeliveryUndeliverable

if TYPE_CHECKING:
    from collections.abc import Mapping

log = logging.getLogger("runqy_delivery")

#: Seconds that one request may take before it counts as failed (runqy's guide).
TIMEOUT = 30.0

#: Answers after which the same request may well succeed, and why.
TRANSIENT = {
    408: "the server waited too long for the request",
    425: "the server asks for it once more",
    429: "too many requests at once",
    500: "a fault of the server's",
    502: "a proxy had no good answer from the server",
    503: "the server is away or busy",
    504: "a proxy had no answer from the server in time",
    # What a content delivery network says of the server behind it: an unknown error, a
    # refused connection, a time-out, a host that is not there, TLS that failed, and the
    # network's own errors.
    **dict.fromkeys(range(520, 531), "a proxy could not reach the server"),
}


@dataclass(frozen=True)
class Answer:
    """What the other end said: the status, and the start of its body."""

    status: int
    text: str
    retry_after: float | None = None


def show(url: str) -> str:
    """Return the address without its query, which is where the secrets are."""
    parts = urllib.parse.urlsplit(url)
    host = parts.hostname or ""
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{host}{port}{parts.path}"


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirected POST would become a GET, and a capability would travel."""

    def redirect_request(self, *_args: Any, **_kwargs: Any) -> None:
        return None


@functools.lru_cache(maxsize=1)
def _opener() -> urllib.request.OpenerDirector:
    # Once: reading the certificates of all authorities takes tens of milliseconds.
    context = ssl.create_default_context()
    return urllib.request.build_opener(
        _NoRedirect, urllib.request.HTTPSHandler(context=context)
    )


def _send(
    method: str,
    url: str,
    body: bytes | IO[bytes],
    headers: Mapping[str, str],
    timeout: float = TIMEOUT,
) -> Answer:
    request = urllib.request.Request(  # noqa: S310 - the scheme is checked by callers
        url, data=body, headers=dict(headers), method=method
    )
    try:
        with _opener().open(request, timeout=timeout) as response:
            return Answer(response.status, _start_of(response))
    except urllib.error.HTTPError as error:
        with error:
            return Answer(
                error.code, _start_of(error), _seconds(error.headers.get("Retry-After"))
            )


def _start_of(response: Any) -> str:
    return str(response.read(2048).decode("utf-8", "replace")).strip()


def _seconds(value: str | None) -> float | None:
    """Read a Retry-After header: seconds, or a date."""
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


def send_once(
    url: str, body: bytes, headers: Mapping[str, str], timeout: float
) -> str | None:
    """POST something that may as well get lost; return what kept it from arriving."""
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        return "it is no http address"
    try:
        answer = _send("POST", url, body, headers, timeout)
    except InvalidURL:
        return "it is no address"  # its own words repeat the URL, and its capability
    except (OSError, HTTPException, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    return None if answer.status < 300 else f"{answer.status} {answer.text[:200]}"  # noqa: PLR2004 - HTTP's successes


def worth_trying_again(answer: Answer) -> str | None:
    """Return why the same request may well succeed later; None where it will not."""
    if answer.status not in TRANSIENT:
        return None
    return f"{answer.status} ({TRANSIENT[answer.status]}) {answer.text[:200]}".strip()


def deliver_over_http(
    method: str,
    url: str,
    make_body: Callable[[], tuple[bytes | IO[bytes], Mapping[str, str]]],
    *,
    is_hopeless: Callable[[], bool] = lambda: False,
    trouble_in: Callable[[Answer], str | None] | None = None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Answer:
    """Send a request until somebody answers it for good.

    Args:
        method: ``POST`` or ``PUT``.
        url: Where to; ``http`` or ``https``.
        make_body: Returns the body and the headers, anew for every try: a stream can
            be sent once only, and a signature carries the time.
        is_hopeless: Asked when there was no answer; True where another try would be as
            futile. A server may refuse a large body, and hang up before it is sent.
        trouble_in: Says of an answer why to try again; None: it is final.
            ``worth_trying_again`` where not given.
        clock: Seconds that only grow; tests bring their own.
        sleep: How to pause; tests bring their own.

    Returns:
        The last answer, which is final.

    Raises:
        DeliveryImpossible: The URL is not one of HTTP's.
        DeliveryUndeliverable: Nobody took it within the time, which counts from the
            first trouble: an upload may take longer than that.
    """
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise DeliveryImpossible(
            f"The delivery request names {show(url)!r}, which is not an http address."
        )
    judge = trouble_in or worth_trying_again
    end: float | None = None
    last = False
    for tries, pause in enumerate(delays(), start=1):
        asked: float | None = None
        answer: Answer | None = None
        body, headers = make_body()
        try:
            answer = _send(method, url, body, headers)
            found = judge(answer)
            if found is None:
                return answer
            trouble, asked = found, answer.retry_after
        except InvalidURL:
            # Its own words repeat the URL, and with it the capability.
            raise DeliveryImpossible(
                f"The delivery request names {show(url)!r}: a blank, or another "
                "character that no address may have, is in it."
            ) from None
        except (OSError, HTTPException) as error:
            trouble = f"{type(error).__name__}: {error}"
        finally:
            if not isinstance(body, bytes):
                body.close()
        end = clock() + retry_budget() if end is None else end
        left = end - clock()
        wait = pause
        if asked is not None:
            # Asked for more time than there is, one last try still comes at its end.
            wait = min(max(pause, asked_delay(asked, pause)), left)
        if last or left <= 0 or wait > left or (answer is None and is_hopeless()):
            raise DeliveryUndeliverable(
                f"{method} {show(url)} was tried {tries} times and not taken; last: "
                f"{trouble}. Check that this machine reaches that address "
                f"({RETRY_FOR_VARIABLE} sets for how long it is tried)."
            )
        log.warning(
            "%s %s: %s; trying again in %.1f s", method, show(url), trouble, wait
        )
        last = wait == left
        sleep(wait)
    raise AssertionError  # pragma: no cover - delays() never ends
