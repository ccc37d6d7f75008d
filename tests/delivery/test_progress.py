"""Progress: sent now and then, never in the way."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from runqy_delivery import DeliveryRequest, delivers, progress
from runqy_delivery.wire import PROGRESS

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Server


def run(server: Server, *calls: tuple[Any, ...], **fields: Any) -> Any:
    @delivers
    def handle(_payload: Any) -> str:
        for call in calls:
            progress(*call)
        return "done"

    given = {"webhook_url": f"{server.url}/hook", **fields}
    return handle(DeliveryRequest("d-1", **given).to_fields())


def told(server: Server) -> list[dict[str, Any]]:
    return [seen.json() for seen in server.seen if seen.json()["status"] == PROGRESS]


def test_progress_is_posted_before_the_result(server: Server) -> None:
    run(server, (0.5, "half"))

    assert [seen.json()["status"] for seen in server.seen] == ["progress", "completed"]
    [message] = told(server)
    assert message["task_id"] == "d-1"
    assert (message["fraction"], message["text"]) == (0.5, "half")


def test_many_calls_make_few_messages(server: Server) -> None:
    run(server, *[(n / 1000,) for n in range(1000)])
    assert len(told(server)) == 1


@pytest.mark.parametrize(
    ("call", "fraction", "text"),
    [
        ((7,), 1.0, None),
        ((-1, "x" * 5000), 0.0, "x" * 500),
        ((float("nan"), "t"), None, "t"),
        ((), None, None),
    ],
)
def test_whatever_is_said_fits_the_wire(
    server: Server, call: tuple[Any, ...], fraction: Any, text: Any
) -> None:
    run(server, call)
    [message] = told(server)
    assert (message.get("fraction"), message.get("text")) == (fraction, text)


def test_a_receiver_that_refuses_or_is_away_costs_nothing(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    server.answers = [(503, {}, b"away"), (200, {}, b'{"outcome": "stored"}')]
    run(server, (0.5,))

    assert server.seen[-1].json()["result"] == "done"
    assert "Progress was not taken by" in caplog.text


def test_nobody_is_told_where_nobody_asked(server: Server, tmp_path: Path) -> None:
    progress(0.5)  # outside of any handler

    @delivers
    def handle(_payload: Any) -> None:
        progress(0.5)

    folder = {"bucket": str(tmp_path), "key": "k", "sink": "file"}
    handle(DeliveryRequest("d-1", **folder).to_fields())
    assert (tmp_path / "k").exists()
    assert server.seen == []


def test_a_thread_of_its_own_has_no_delivery(server: Server) -> None:
    @delivers
    def handle(_payload: Any) -> None:
        thread = threading.Thread(target=progress, args=(0.5,))
        thread.start()
        thread.join()

    handle(DeliveryRequest("d-1", webhook_url=f"{server.url}/hook").to_fields())
    assert told(server) == []


def test_a_signing_secret_that_is_none_costs_the_job_nothing(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNQY_DELIVERY_SIGNING_SECRET", "whsec_not-base64!")
    reached = []

    @delivers
    def handle(_payload: Any) -> None:
        progress(0.5)
        reached.append(True)

    handle(DeliveryRequest("d-1", webhook_url=f"{server.url}/hook").to_fields())
    assert reached == [True]
    assert server.seen[-1].json()["status"] == "failed"
