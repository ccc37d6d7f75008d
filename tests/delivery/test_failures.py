"""What the worker side knows reaches Airflow, through whichever channel there is."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

import pytest

from runqy_delivery import DeliveryRequest, DeliveryUndeliverable, delivers, progress
from runqy_delivery._http import TRANSIENT, deliver_over_http

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from conftest import Server

TABLE = {
    "name": "tasks",
    "id": "id",
    "status": "status",
    "result": "result",
    "completed_at": "completed_at",
}
AMQP = {"exchange": "", "routing_key": "results"}
TAKEN = (200, {}, b'{"outcome": "stored"}')


def failure_of(server: Server, handle: Any, **fields: Any) -> dict[str, Any]:
    """Return the failure that is delivered for a job."""
    request = DeliveryRequest("d-1", failure_url=f"{server.url}/failures", **fields)
    delivers(handle)(request.to_fields())
    (seen,) = server.seen
    delivery: dict[str, Any] = seen.json()
    assert (seen.path, delivery["status"]) == ("/failures", "failed")
    return dict(delivery["error"])


@pytest.mark.parametrize(
    ("fields", "environment", "words"),
    [
        ({"sink": "sql", "table": TABLE}, {}, "RUNQY_DELIVERY_DATABASE_URL is not set"),
        (
            {"sink": "sql", "table": TABLE},
            {"RUNQY_DELIVERY_DATABASE_URL": "nodatabase://host/x"},
            "No driver|cannot be used",
        ),
        (
            {"sink": "sql", "table": TABLE},
            {"RUNQY_DELIVERY_DATABASE_URL": "sqlite:///:memory:"},
            "no such table",
        ),
        ({"sink": "sql", "table": {**TABLE, "name": "a b"}}, {"X": "1"}, "."),
        (
            {"sink": "amqp", "amqp": AMQP},
            {},
            "RUNQY_DELIVERY_AMQP_URL is not set|pika is not installed",
        ),
        (
            {"sink": "file", "bucket": "/proc/nowhere", "key": "k"},
            {},
            "/proc/nowhere/k could not be written",
        ),
    ],
)
def test_a_delivery_that_can_never_be_made_is_a_failure_with_its_reason(
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
    fields: dict[str, Any],
    environment: dict[str, str],
    words: str,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    if fields["sink"] == "file":
        fields = {**fields, "webhook_url": f"{server.url}/failures"}
    error = failure_of(server, lambda _payload: 1, **fields)

    assert error["type"] == "DeliveryImpossible"
    assert any(word in error["message"] for word in words.split("|"))


def test_the_failure_channel_hears_nothing_of_a_success(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    import sqlite3

    database = tmp_path / "results.db"
    with sqlite3.connect(database) as connection:
        connection.execute(
            "CREATE TABLE tasks (id text, status text, result text, completed_at text)"
        )
    monkeypatch.setenv("RUNQY_DELIVERY_DATABASE_URL", f"sqlite:///{database}")
    request = DeliveryRequest(
        "d-1", sink="sql", table=TABLE, failure_url=f"{server.url}/failures"
    )

    delivers(lambda _payload: 1)(request.to_fields())

    assert server.seen == []


def test_where_no_channel_works_the_first_reason_is_raised(server: Server) -> None:
    server.answers = [(403, {}, b'{"error": "no"}')]
    request = DeliveryRequest(
        "d-1", sink="sql", table=TABLE, failure_url=f"{server.url}/failures"
    )

    with pytest.raises(DeliveryUndeliverable, match="DATABASE_URL is not set"):
        delivers(lambda _payload: 1)(request.to_fields())


def test_signed_url_of_expired_credentials_is_a_failure_by_webhook(
    server: Server,
) -> None:
    server.answers = [(400, {}, b"<Error><Code>ExpiredToken</Code></Error>"), TAKEN]
    request = DeliveryRequest(
        "d-1",
        sink="s3",
        bucket="b",
        key="k",
        put_url=f"{server.url}/b/k?X-Amz-Signature=SECRET",
        webhook_url=f"{server.url}/hook",
    )

    delivers(lambda _payload: 1)(request.to_fields())

    put, post = server.seen
    assert (put.method, post.path) == ("PUT", "/hook")
    assert "ExpiredToken" in post.json()["error"]["message"]
    assert "SECRET" not in post.body.decode()


# -- whoever answers must be the receiver --------------------


@pytest.mark.parametrize(
    "answer",
    [
        (200, {"Content-Type": "text/html"}, b"<html>Log in</html>"),
        (200, {}, b""),
        (201, {}, b"{}"),
        (200, {}, b'["outcome"]'),
        (409, {}, b"<html>Conflict</html>"),
        (410, {}, b"gone"),
    ],
)
def test_an_answer_that_is_not_the_receivers_is_tried_again(
    server: Server, answer: Any
) -> None:
    server.answers = [answer, TAKEN]
    request = DeliveryRequest("d-1", webhook_url=f"{server.url}/hook")

    delivers(lambda _payload: 1)(request.to_fields())

    assert len(server.seen) == 2


def test_a_web_page_in_place_of_the_receiver_is_named(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNQY_DELIVERY_RETRY_FOR", "0.05")
    server.answers = [(200, {}, b"<html>Log in</html>")]
    request = DeliveryRequest("d-1", webhook_url=f"{server.url}/hook")

    with pytest.raises(DeliveryUndeliverable) as caught:
        delivers(lambda _payload: 1)(request.to_fields())
    assert "whoever answered is not the receiver" in str(caught.value)
    assert "callback_url" in str(caught.value)


@pytest.mark.parametrize("status", sorted(TRANSIENT))
def test_an_answer_worth_trying_again_is_tried_again(
    server: Server, status: int
) -> None:
    server.answers = [(status, {}, b"<html>"), TAKEN]
    request = DeliveryRequest("d-1", webhook_url=f"{server.url}/hook")

    delivers(lambda _payload: 1)(request.to_fields())

    assert len(server.seen) == 2


def test_what_content_delivery_networks_say_is_worth_trying_again() -> None:
    assert set(range(520, 531)) <= set(TRANSIENT)
    assert all(TRANSIENT.values()), "each with its reason"


# -- time counts from the first trouble --------------------


def test_an_upload_longer_than_the_budget_has_its_tries(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNQY_DELIVERY_RETRY_FOR", "300")
    server.answers = [(503, {}, b""), (200, {}, b"")]
    now = [0.0]

    def make_body() -> tuple[bytes, dict[str, str]]:
        now[0] += 360  # each try takes six minutes
        return b"x", {}

    answer = deliver_over_http(
        "PUT",
        f"{server.url}/k",
        make_body,
        clock=lambda: now[0],
        sleep=lambda _seconds: None,
    )

    assert answer.status == 200
    assert len(server.seen) == 2


def test_a_request_timeout_of_s3_is_tried_again(server: Server) -> None:
    slow = b"<Error><Code>RequestTimeout</Code></Error>"
    server.answers = [(400, {}, slow), (200, {}, b"")]
    request = DeliveryRequest(
        "d-1",
        sink="s3",
        bucket="b",
        key="k",
        put_url=f"{server.url}/b/k?X-Amz-Signature=SECRET",
    )

    delivers(lambda _payload: 1)(request.to_fields())

    assert [seen.method for seen in server.seen] == ["PUT", "PUT"]


# -- handlers of every kind --------------------


def delivered(server: Server, handle: Any) -> dict[str, Any]:
    request = DeliveryRequest("d-1", webhook_url=f"{server.url}/hook")
    delivers(handle)(request.to_fields())
    body: dict[str, Any] = server.seen[-1].json()
    return body


def test_an_async_handler_is_run_to_its_end(server: Server) -> None:
    async def handle(_payload: Any) -> Any:
        progress(0.5, "half")
        await asyncio.sleep(0)
        return {"a": 1}

    assert delivered(server, handle)["result"] == {"a": 1}
    assert server.seen[0].json()["text"] == "half"


def test_an_async_handler_that_raises_is_a_failure(server: Server) -> None:
    async def handle(_payload: Any) -> Any:
        await asyncio.sleep(0)
        raise ValueError("too dark")

    assert delivered(server, handle)["error"]["type"] == "ValueError"


def test_an_async_handler_without_a_request_is_run_too() -> None:
    async def handle(payload: Any) -> Any:
        await asyncio.sleep(0)
        return payload["a"]

    assert delivers(handle)({"a": 5}) == 5


def test_a_generator_is_refused_when_it_is_decorated() -> None:
    def handle(_payload: Any) -> Iterator[int]:
        yield 1

    async def ahandle(_payload: Any) -> AsyncIterator[int]:
        yield 1

    for one in (handle, ahandle):
        with pytest.raises(TypeError, match="Return one result"):
            delivers(one)


@pytest.mark.parametrize("code", ["no speech found", 3, None, 0])
def test_an_exit_is_a_failure_that_is_delivered_at_once(
    server: Server, code: Any
) -> None:
    error = delivered(server, lambda _payload: sys.exit(code))["error"]

    assert error["type"] == "SystemExit"
    assert code is None or str(code) in error["message"]
