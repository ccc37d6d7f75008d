"""Progress: how often it is sent, and that an error never stops the handler."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from runqy_delivery import DeliveryRequest, delivers, progress
from runqy_delivery.wire import PROGRESS
from tests.delivery.helpers import STORED

if TYPE_CHECKING:
    from pathlib import Path

    from tests.delivery.helpers import HttpServer


def run(server: HttpServer, *calls: tuple[Any, ...], **fields: Any) -> Any:
    @delivers
    def handle(_payload: Any) -> str:
        for call in calls:
            progress(*call)
        return "done"

    given = {"webhook_url": f"{server.url}/hook", **fields}
    return handle(DeliveryRequest("d-1", **given).to_fields())


def progress_messages(server: HttpServer) -> list[dict[str, Any]]:
    deliveries = [request.json() for request in server.requests]
    return [one for one in deliveries if one["status"] == PROGRESS]


def test_progress_call_is_posted_before_the_result(server: HttpServer) -> None:
    run(server, (0.5, "half"))

    statuses = [request.json()["status"] for request in server.requests]
    assert statuses == ["progress", "completed"]
    [message] = progress_messages(server)
    assert message["task_id"] == "d-1"
    assert (message["fraction"], message["text"]) == (0.5, "half")


def test_progress_many_calls_send_one_message(server: HttpServer) -> None:
    run(server, *[(n / 1000,) for n in range(1000)])
    assert len(progress_messages(server)) == 1


@pytest.mark.parametrize(
    ("call", "fraction", "text"),
    [
        ((7,), 1.0, None),
        ((-1, "x" * 5000), 0.0, "x" * 500),
        ((float("nan"), "t"), None, "t"),
        ((), None, None),
    ],
)
def test_progress_any_arguments_are_limited(
    server: HttpServer, call: tuple[Any, ...], fraction: Any, text: Any
) -> None:
    run(server, call)
    [message] = progress_messages(server)
    assert (message.get("fraction"), message.get("text")) == (fraction, text)


def test_progress_unavailable_receiver_is_only_logged(
    server: HttpServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.responses = [(503, {}, b"unavailable"), (200, {}, STORED)]
    run(server, (0.5,))

    assert server.requests[-1].json()["result"] == "done"
    assert "Progress could not be sent to" in caplog.text


def test_progress_without_webhook_sends_nothing(
    server: HttpServer, tmp_path: Path
) -> None:
    progress(0.5)  # outside of any handler

    @delivers
    def handle(_payload: Any) -> None:
        progress(0.5)

    request = DeliveryRequest("d-1", sink="file", bucket=str(tmp_path), key="k")
    handle(request.to_fields())
    assert (tmp_path / "k").exists()
    assert server.requests == []


def test_progress_in_another_thread_sends_nothing(server: HttpServer) -> None:
    @delivers
    def handle(_payload: Any) -> None:
        thread = threading.Thread(target=progress, args=(0.5,))
        thread.start()
        thread.join()

    handle(DeliveryRequest("d-1", webhook_url=f"{server.url}/hook").to_fields())
    assert progress_messages(server) == []


def test_progress_invalid_signing_secret_raises_nothing(
    server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNQY_DELIVERY_SIGNING_SECRET", "whsec_not-base64!")
    reached: list[bool] = []

    @delivers
    def handle(_payload: Any) -> None:
        progress(0.5)
        reached.append(True)

    handle(DeliveryRequest("d-1", webhook_url=f"{server.url}/hook").to_fields())
    assert reached == [True]
    assert server.requests[-1].json()["status"] == "failed"
