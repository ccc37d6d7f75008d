"""The patience of the helper."""

from __future__ import annotations

import socket
import time
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from typing import TYPE_CHECKING

import pytest

from runqy_delivery import _http as http
from runqy_delivery import _retry as patience
from runqy_delivery.errors import DeliveryUndeliverable
from runqy_delivery.sinks import webhook

if TYPE_CHECKING:
    from conftest import Server


def test_a_transient_answer_is_tried_again(server: Server) -> None:
    server.answers = [
        (500, {}, b""),
        (503, {}, b""),
        (429, {}, b""),
        (200, {}, b'{"outcome": "stored"}'),
    ]

    webhook.post(f"{server.url}/x", "id", b"{}")

    assert len(server.seen) == 4


class Watch:
    """A clock that only pauses move on, and that remembers them."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds

    def deliver(self, server: Server) -> http.Answer:
        return http.deliver_over_http(
            "POST",
            f"{server.url}/x",
            lambda: (b"{}", {}),
            clock=lambda: self.now,
            sleep=self.sleep,
        )


def test_retry_after_is_honoured(server: Server) -> None:
    server.answers = [(503, {"Retry-After": "2.5"}, b""), (200, {}, b"")]
    watch = Watch()

    assert watch.deliver(server).status == 200
    (pause,) = watch.pauses
    assert 2.5 <= pause < 2.5 * 1.3


@pytest.mark.parametrize("status", [429, 503])
def test_those_who_were_told_the_same_time_come_back_spread(
    server: Server, status: int
) -> None:
    pauses = []
    for _ in range(30):
        server.answers = [(status, {"Retry-After": "3"}, b""), (200, {}, b"")]
        watch = Watch()
        watch.deliver(server)
        pauses += watch.pauses

    assert min(pauses) >= 3
    assert max(pauses) - min(pauses) > 0.2
    assert len(set(pauses)) == 30


@pytest.mark.parametrize("asked", ["5", "6", "86400", "1e999"])
def test_asked_for_more_time_than_there_is_one_last_try_comes_at_its_end(
    server: Server, asked: str
) -> None:
    server.answers = [(503, {"Retry-After": asked}, b""), (200, {}, b"")]
    watch = Watch()

    assert watch.deliver(server).status == 200
    assert watch.pauses == [5.0]


def test_after_the_last_try_there_is_none(server: Server) -> None:
    server.answers = [(503, {"Retry-After": "60"}, b"busy")]
    watch = Watch()

    with pytest.raises(DeliveryUndeliverable, match="tried 2 times"):
        watch.deliver(server)
    assert watch.pauses == [5.0]


def test_without_any_time_there_is_one_try(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(patience.RETRY_FOR_VARIABLE, "0")
    server.answers = [(503, {"Retry-After": "60"}, b"busy")]

    with pytest.raises(DeliveryUndeliverable, match="tried 1 times"):
        Watch().deliver(server)
    assert len(server.seen) == 1


def test_retry_after_may_be_a_date() -> None:
    later = datetime.now(timezone.utc) + timedelta(seconds=40)

    seconds = http._seconds(format_datetime(later, usegmt=True))

    assert seconds is not None
    assert 30 < seconds <= 40


def test_nobody_there_is_tried_until_the_time_is_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(patience.RETRY_FOR_VARIABLE, "0.2")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    started = time.monotonic()
    with pytest.raises(DeliveryUndeliverable, match=r"tried [0-9]+ times") as caught:
        webhook.post(f"http://127.0.0.1:{port}/x?token=SECRET", "id", b"{}")

    assert time.monotonic() - started < 5
    assert "SECRET" not in str(caught.value)
    assert patience.RETRY_FOR_VARIABLE in str(caught.value)


def test_a_redirect_is_not_followed(server: Server) -> None:
    server.answers = [(302, {"Location": f"{server.url}/elsewhere"}, b"")]

    with pytest.raises(DeliveryUndeliverable, match="302"):
        webhook.post(f"{server.url}/x", "id", b"{}")
    assert len(server.seen) == 1


@pytest.mark.parametrize("url", ["ftp://host/x", "file:///etc/passwd", "x", "http://"])
def test_only_http_addresses_are_delivered_to(url: str) -> None:
    with pytest.raises(DeliveryUndeliverable, match="not an http address"):
        webhook.post(url, "id", b"{}")


def test_the_pauses_double_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "FIRST_DELAY", 1.0)
    monkeypatch.setattr(patience, "LONGEST_DELAY", 4.0)
    pauses = [pause for pause, _ in zip(patience.delays(), range(50))]

    assert 0.5 <= pauses[0] <= 1.0
    assert 1.0 <= pauses[1] <= 2.0
    assert all(2.0 <= pause <= 4.0 for pause in pauses[2:])
    assert len(set(pauses)) > 40


@pytest.mark.parametrize(("text", "budget"), [("", 300), ("7", 7), ("soon", 300)])
def test_the_environment_sets_how_long_to_try(
    monkeypatch: pytest.MonkeyPatch, text: str, budget: float
) -> None:
    monkeypatch.setenv(patience.RETRY_FOR_VARIABLE, text)

    assert patience.retry_budget() == budget


@pytest.mark.parametrize("value", ["soon", "Mon, 99 Foo", None])
def test_a_retry_after_that_cannot_be_read_is_ignored(value: str | None) -> None:
    assert http._seconds(value) is None


def test_an_address_that_is_none_is_not_tried_and_not_repeated() -> None:
    """The words of http.client would repeat it, and with it the capability."""
    url = "http://127.0.0.1:9/a b?token=SECRET"
    with pytest.raises(DeliveryUndeliverable, match="a blank") as caught:
        webhook.post(url, "id", b"{}")
    assert "SECRET" not in f"{caught.value!r} {caught.value.__cause__!r}"
    assert "SECRET" not in str(http.send_once(url, b"{}", {}, 1.0))
