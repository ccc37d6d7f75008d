"""``delivers``: which handlers it accepts, what they get, and what it raises."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import types
from typing import TYPE_CHECKING, Any

import pytest

from runqy_delivery import (
    BadDelivery,
    DeliveryRequest,
    DeliveryUndeliverable,
    delivers,
    progress,
)
from tests.delivery.helpers import STORED, deliver, webhook_payload

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tests.delivery.helpers import HttpServer


def test_delivers_json_value_is_posted_to_webhook_url(server: HttpServer) -> None:
    delivery = deliver(server, {"text": "hello"})
    expected = {
        "version": 1,
        "task_id": "d-1",
        "status": "completed",
        "result": {"text": "hello"},
    }

    assert expected == delivery
    assert server.requests[0].path.endswith("/d-1?expires=9&token=SECRET")
    assert server.requests[0].headers["content-type"] == "application/json"


@pytest.mark.parametrize("value", [None, 0, "text", [1, 2.5], {"result": None}, True])
def test_delivers_any_json_value_is_unchanged(server: HttpServer, value: Any) -> None:
    assert deliver(server, value)["result"] == value


def test_delivers_handler_gets_payload_without_request(server: HttpServer) -> None:
    arguments: list[Any] = []

    @delivers
    def handle(payload: dict[str, Any], ctx: dict[str, Any]) -> None:
        arguments.extend((payload, ctx))

    handle({"input": 1, **webhook_payload(server)}, {"model": "m"})

    assert arguments == [{"input": 1}, {"model": "m"}]


@pytest.mark.parametrize(
    "payload", [{"input": 1}, [1, 2], "text", {"delivery": "express"}, {"delivery": {}}]
)
def test_delivers_payload_without_request_is_passed_unchanged(payload: Any) -> None:
    payloads: list[Any] = []

    @delivers
    def handle(given: Any) -> str:
        payloads.append(given)
        return "for runqy"

    assert handle(payload) == "for runqy"
    assert payloads[0] is payload


def test_delivers_exception_is_delivered_and_not_raised(server: HttpServer) -> None:
    @delivers
    def handle(_payload: dict[str, Any]) -> None:
        raise ValueError("the video is too dark")

    assert handle(webhook_payload(server)) is None

    delivery = server.requests[0].json()
    assert delivery["status"] == "failed"
    assert delivery["error"]["type"] == "ValueError"
    assert delivery["error"]["message"] == "the video is too dark"
    assert 'raise ValueError("the video is too dark")' in delivery["error"]["traceback"]


class BrokenMessage(Exception):
    """An error whose message cannot be read."""

    def __str__(self) -> str:
        raise ZeroDivisionError


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError("x" * 9_000_000 + "the end"), "the end"),
        (BrokenMessage(), "its __str__ raised ZeroDivisionError"),
        (ValueError("\ud800"), "\ud800"),
    ],
    ids=["long", "broken __str__", "unpaired surrogate"],
)
def test_delivers_failure_with_any_message_is_delivered(
    server: HttpServer, error: Exception, message: str
) -> None:
    @delivers
    def handle(_payload: Any) -> None:
        raise error

    handle(webhook_payload(server))
    request = server.requests[-1]

    assert len(request.body) < 200_000
    assert message in request.json()["error"]["message"]
    assert request.json()["error"]["type"] == type(error).__name__


@pytest.fixture
def retryable(monkeypatch: pytest.MonkeyPatch) -> type[Exception]:
    """A subclass of a fake RetryableError: runqy-python is not installed here."""
    module = types.ModuleType("runqy_python.decorator")
    base = type("RetryableError", (Exception,), {"__module__": module.__name__})
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return type("TryLater", (base,), {})


def test_delivers_retryable_error_is_raised(
    server: HttpServer, retryable: type[Exception]
) -> None:
    @delivers
    def handle(_payload: dict[str, Any]) -> None:
        raise retryable("later")

    with pytest.raises(retryable):
        handle(webhook_payload(server))
    assert server.requests == []


def test_delivers_request_of_newer_version_raises_with_update_hint() -> None:
    with pytest.raises(BadDelivery, match="Update runqy-delivery"):
        delivers(lambda payload: payload)(
            {"task_id": "d", "delivery": {"version": 99, "sink": "webhook"}}
        )


def test_delivers_request_with_unknown_field_is_read(server: HttpServer) -> None:
    payload = webhook_payload(server)
    payload["delivery"]["from_the_future"] = {"a": 1}

    delivers(lambda _payload: 1)(payload)

    assert server.requests[0].json()["result"] == 1


@pytest.mark.parametrize(
    "payload",
    [
        {"delivery": {"version": 1}},
        {"task_id": 5, "delivery": {"version": 1}},
        {"task_id": "d", "delivery": {"version": 1, "key": 7}},
        {"task_id": "d", "delivery": {"version": "1"}},
    ],
)
def test_delivers_invalid_request_raises(payload: Any) -> None:
    with pytest.raises(BadDelivery):
        delivers(lambda _payload: 1)(payload)


def test_delivers_unknown_sink_is_a_failure(server: HttpServer) -> None:
    delivery = deliver(server, 1, sink="carrier-pigeon")

    assert delivery["status"] == "failed"
    assert "carrier-pigeon" in delivery["error"]["message"]


def test_delivers_request_without_webhook_url_raises() -> None:
    payload = DeliveryRequest("d-1").to_fields()

    with pytest.raises(DeliveryUndeliverable, match="webhook_url"):
        delivers(lambda _payload: 1)(payload)


def test_delivers_in_worker_process_writes_nothing_to_stdout(
    server: HttpServer,
) -> None:
    """A worker reads its protocol from the stdout of the task process."""
    server.responses = [(503, {}, b"later"), (200, {}, STORED)]
    code = (
        "import json, sys\n"
        "from runqy_delivery import _retry, delivers\n"
        "_retry.INITIAL_DELAY = 0.01\n"
        "delivers(lambda payload: object())(json.loads(sys.argv[1]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(webhook_payload(server))],
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout == ""
    assert "retrying in" in done.stderr
    assert len(server.requests) == 2


def delivery_of(server: HttpServer, handle: Any) -> dict[str, Any]:
    """Run a handler, and return the delivery that the server received last."""
    request = DeliveryRequest("d-1", webhook_url=f"{server.url}/hook")
    delivers(handle)(request.to_fields())
    body: dict[str, Any] = server.requests[-1].json()
    return body


def test_delivers_async_handler_is_awaited(server: HttpServer) -> None:
    async def handle(_payload: Any) -> Any:
        progress(0.5, "half")
        await asyncio.sleep(0)
        return {"a": 1}

    assert delivery_of(server, handle)["result"] == {"a": 1}
    assert server.requests[0].json()["text"] == "half"


def test_delivers_async_handler_error_is_a_failure(server: HttpServer) -> None:
    async def handle(_payload: Any) -> Any:
        await asyncio.sleep(0)
        raise ValueError("too dark")

    assert delivery_of(server, handle)["error"]["type"] == "ValueError"


def test_delivers_async_handler_without_request_is_awaited() -> None:
    async def handle(payload: Any) -> Any:
        await asyncio.sleep(0)
        return payload["a"]

    assert delivers(handle)({"a": 5}) == 5


def test_delivers_generator_handler_is_refused() -> None:
    def handle(_payload: Any) -> Iterator[int]:
        yield 1

    async def async_handle(_payload: Any) -> AsyncIterator[int]:
        yield 1

    for generator in (handle, async_handle):
        with pytest.raises(TypeError, match="Return one result"):
            delivers(generator)


@pytest.mark.parametrize("code", ["no speech found", 3, None, 0])
def test_delivers_system_exit_is_a_failure(server: HttpServer, code: Any) -> None:
    error = delivery_of(server, lambda _payload: sys.exit(code))["error"]

    assert error["type"] == "SystemExit"
    assert code is None or str(code) in error["message"]
