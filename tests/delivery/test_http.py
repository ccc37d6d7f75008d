"""HTTP requests: which are retried, when, and for how long."""

from __future__ import annotations

import socket
import time
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from typing import TYPE_CHECKING

import pytest

from runqy_delivery._http import (
    RETRYABLE_STATUSES,
    Response,
    _retry_after_seconds,
    deliver_over_http,
    redact,
    send_once,
)
from runqy_delivery._retry import RETRY_FOR_VARIABLE
from runqy_delivery.errors import DeliveryUndeliverable
from runqy_delivery.sinks import webhook
from tests.delivery.helpers import STORED

if TYPE_CHECKING:
    from tests.delivery.helpers import HttpServer


class FakeClock:
    """A clock that advances only by sleeping, and records each sleep in seconds."""

    def __init__(self) -> None:
        self.now = 0.0
        self.sleeps: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.now += seconds

    def deliver(self, server: HttpServer) -> Response:
        """POST to a server, with the retry budget of 5 seconds on this clock."""
        return deliver_over_http(
            "POST",
            f"{server.url}/x",
            lambda: (b"{}", {}),
            clock=lambda: self.now,
            sleep=self.sleep,
        )


def test_post_retryable_responses_are_retried(server: HttpServer) -> None:
    server.responses = [
        (500, {}, b""),
        (503, {}, b""),
        (429, {}, b""),
        (200, {}, STORED),
    ]

    webhook.post(f"{server.url}/x", "id", b"{}")

    assert len(server.requests) == 4


def test_retryable_statuses_include_content_delivery_networks() -> None:
    assert set(range(520, 531)) <= set(RETRYABLE_STATUSES)
    assert all(RETRYABLE_STATUSES.values()), "each with its meaning"


def test_deliver_over_http_retry_after_is_honoured(server: HttpServer) -> None:
    server.responses = [(503, {"Retry-After": "2.5"}, b""), (200, {}, b"")]
    clock = FakeClock()

    assert clock.deliver(server).status == 200
    (sleep,) = clock.sleeps
    assert 2.5 <= sleep < 2.5 * 1.3


@pytest.mark.parametrize("status", [429, 503])
def test_deliver_over_http_same_retry_after_is_spread(
    server: HttpServer, status: int
) -> None:
    sleeps = []
    for _ in range(30):
        server.responses = [(status, {"Retry-After": "3"}, b""), (200, {}, b"")]
        clock = FakeClock()
        clock.deliver(server)
        sleeps += clock.sleeps

    assert min(sleeps) >= 3
    assert max(sleeps) - min(sleeps) > 0.2
    assert len(set(sleeps)) == 30


@pytest.mark.parametrize("retry_after", ["5", "6", "86400", "1e999"])
def test_deliver_over_http_retry_after_beyond_budget_gets_one_last_try(
    server: HttpServer, retry_after: str
) -> None:
    server.responses = [(503, {"Retry-After": retry_after}, b""), (200, {}, b"")]
    clock = FakeClock()

    assert clock.deliver(server).status == 200
    assert clock.sleeps == [5.0]


def test_deliver_over_http_failed_last_try_raises(server: HttpServer) -> None:
    server.responses = [(503, {"Retry-After": "60"}, b"busy")]
    clock = FakeClock()

    with pytest.raises(DeliveryUndeliverable, match=r"failed 2 time\(s\)"):
        clock.deliver(server)
    assert clock.sleeps == [5.0]


def test_deliver_over_http_without_budget_tries_once(
    server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(RETRY_FOR_VARIABLE, "0")
    server.responses = [(503, {"Retry-After": "60"}, b"busy")]

    with pytest.raises(DeliveryUndeliverable, match=r"failed 1 time\(s\)"):
        FakeClock().deliver(server)
    assert len(server.requests) == 1


def test_deliver_over_http_slow_upload_is_retried(
    server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The budget starts at the first error, not when the first upload starts."""
    monkeypatch.setenv(RETRY_FOR_VARIABLE, "300")
    server.responses = [(503, {}, b""), (200, {}, b"")]
    clock = FakeClock()

    def make_body() -> tuple[bytes, dict[str, str]]:
        clock.now += 360  # each upload takes six minutes
        return b"x", {}

    response = deliver_over_http(
        "PUT",
        f"{server.url}/k",
        make_body,
        clock=lambda: clock.now,
        sleep=clock.sleep,
    )

    assert response.status == 200
    assert len(server.requests) == 2


def test_retry_after_seconds_date_is_parsed() -> None:
    later = datetime.now(timezone.utc) + timedelta(seconds=40)

    seconds = _retry_after_seconds(format_datetime(later, usegmt=True))

    assert seconds is not None
    assert 30 < seconds <= 40


@pytest.mark.parametrize("value", ["soon", "Mon, 99 Foo", None])
def test_retry_after_seconds_invalid_value_is_none(value: str | None) -> None:
    assert _retry_after_seconds(value) is None


def test_post_refused_connection_is_retried_within_budget(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(RETRY_FOR_VARIABLE, "0.2")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    started = time.monotonic()
    with pytest.raises(DeliveryUndeliverable, match=r"failed \d+ time\(s\)") as caught:
        webhook.post(f"http://127.0.0.1:{port}/x?token=SECRET", "id", b"{}")

    assert time.monotonic() - started < 5
    assert "SECRET" not in str(caught.value)
    assert RETRY_FOR_VARIABLE in str(caught.value)


def test_post_redirect_is_not_followed(server: HttpServer) -> None:
    server.responses = [(302, {"Location": f"{server.url}/elsewhere"}, b"")]

    with pytest.raises(DeliveryUndeliverable, match="302"):
        webhook.post(f"{server.url}/x", "id", b"{}")
    assert len(server.requests) == 1


@pytest.mark.parametrize("url", ["ftp://host/x", "file:///etc/passwd", "x", "http://"])
def test_post_non_http_url_is_refused(url: str) -> None:
    with pytest.raises(DeliveryUndeliverable, match="is not a valid http:// or https"):
        webhook.post(url, "id", b"{}")


def test_post_invalid_url_is_neither_sent_nor_repeated() -> None:
    """The message of http.client's error would repeat it, with its token."""
    url = "http://127.0.0.1:9/a b?token=SECRET"

    with pytest.raises(DeliveryUndeliverable, match="contains a space") as caught:
        webhook.post(url, "id", b"{}")
    assert "SECRET" not in f"{caught.value!r} {caught.value.__cause__!r}"
    assert "SECRET" not in str(send_once(url, b"{}", {}, 1.0))


def test_redact_login_and_query_are_omitted() -> None:
    assert redact("https://user:SECRET@host:8443/a/b?token=SECRET") == (
        "https://host:8443/a/b"
    )
