"""What @delivers does with a handler, against a real HTTP server."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from runqy_delivery import (
    BadDelivery,
    DeliveryRequest,
    DeliveryUndeliverable,
    Result,
    delivers,
)

if TYPE_CHECKING:
    from conftest import Server


def request_for(server: Server, **fields: Any) -> dict[str, Any]:
    url = f"{server.url}/runqy/conn/v1/deliveries/d-1?expires=9&token=SECRET"
    return DeliveryRequest("d-1", webhook_url=url, **fields).to_fields()


def deliver(server: Server, returned: Any, **fields: Any) -> Any:
    @delivers
    def handle(_payload: dict[str, Any]) -> Any:
        return returned

    handle({"input": 1, **request_for(server, **fields)})
    return server.seen[-1].json()


def test_a_value_is_posted_to_where_the_payload_says(server: Server) -> None:
    delivery = deliver(server, {"text": "hello"})
    expected = {
        "version": 1,
        "task_id": "d-1",
        "status": "completed",
        "result": {"text": "hello"},
    }

    assert expected == delivery
    assert server.seen[0].path.endswith("/d-1?expires=9&token=SECRET")
    assert server.seen[0].headers["content-type"] == "application/json"


@pytest.mark.parametrize("value", [None, 0, "text", [1, 2.5], {"result": None}, True])
def test_any_json_value_comes_through(server: Server, value: Any) -> None:
    assert deliver(server, value)["result"] == value


def test_the_handler_sees_the_payload_as_the_dag_wrote_it(server: Server) -> None:
    seen: list[Any] = []

    @delivers
    def handle(payload: dict[str, Any], ctx: dict[str, Any]) -> None:
        seen.extend((payload, ctx))

    handle({"input": 1, **request_for(server)}, {"model": "m"})

    assert seen == [{"input": 1}, {"model": "m"}]


@pytest.mark.parametrize(
    "payload", [{"input": 1}, [1, 2], "text", {"delivery": "express"}, {"delivery": {}}]
)
def test_a_payload_without_a_request_passes_through(payload: Any) -> None:
    seen: list[Any] = []

    @delivers
    def handle(given: Any) -> str:
        seen.append(given)
        return "for runqy"

    assert handle(payload) == "for runqy"
    assert seen[0] is payload


def test_bytes_travel_as_base64_with_their_type(server: Server) -> None:
    delivery = deliver(
        server, Result(b"\x00\xff", content_type="image/png", metadata={"w": 2})
    )

    assert base64.b64decode(delivery.pop("result")) == b"\x00\xff"
    expected = {
        "version": 1,
        "task_id": "d-1",
        "status": "completed",
        "encoding": "base64",
        "content_type": "image/png",
        "size": 2,
        "metadata": {"w": 2},
    }
    assert expected == delivery


def test_a_path_is_read_and_its_type_guessed(server: Server, tmp_path: Path) -> None:
    image = tmp_path / "image.png"
    image.write_bytes(b"png!")

    delivery = deliver(server, image)

    assert base64.b64decode(delivery["result"]) == b"png!"
    assert delivery["content_type"] == "image/png"


def test_an_exception_is_delivered_and_swallowed(server: Server) -> None:
    @delivers
    def handle(_payload: dict[str, Any]) -> None:
        raise ValueError("the film is too dark")

    assert handle(request_for(server)) is None

    delivery = server.seen[0].json()
    assert delivery["status"] == "failed"
    assert delivery["error"]["type"] == "ValueError"
    assert delivery["error"]["message"] == "the film is too dark"
    assert 'raise ValueError("the film is too dark")' in delivery["error"]["traceback"]


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        (object(), "not JSON serializable"),
        (float("nan"), "not JSON"),
        (Path("/nowhere/at/all"), "cannot be read"),
        (Result(1, metadata={"x": {1}}), "metadata of the result is not JSON"),
    ],
)
def test_a_result_that_cannot_travel_is_a_failure(
    server: Server, returned: Any, words: str
) -> None:
    delivery = deliver(server, returned)

    assert delivery["status"] == "failed"
    assert words in delivery["error"]["message"]


@pytest.mark.parametrize("returned", ["x" * 3000, b"x" * 2000])
def test_a_result_over_the_limit_is_a_failure_that_names_the_way_out(
    server: Server, returned: Any
) -> None:
    delivery = deliver(server, returned, max_bytes=3000)

    assert delivery["status"] == "failed"
    assert "s3://bucket/prefix" in delivery["error"]["message"]


@pytest.mark.parametrize("status", [400, 413])
def test_a_body_that_the_receiver_refuses_for_good_is_a_failure(
    server: Server, status: int
) -> None:
    """Run again by runqy, the job would only be refused again."""
    server.answers = [(status, {}, b"not so"), (200, {}, b'{"outcome": "stored"}')]

    deliver(server, "x" * 100)

    assert [seen.json()["status"] for seen in server.seen] == ["completed", "failed"]


def test_a_failure_that_nobody_takes_raises(server: Server) -> None:
    server.answers = [(413, {}, b"too large")]

    with pytest.raises(DeliveryUndeliverable):
        deliver(server, "x")


@pytest.fixture
def retryable(monkeypatch: pytest.MonkeyPatch) -> type[Exception]:
    """An error of runqy-python, which is not installed here."""
    module = types.ModuleType("runqy_python.decorator")
    kind = type("RetryableError", (Exception,), {"__module__": module.__name__})
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return type("Again", (kind,), {})


def test_a_retryable_error_is_left_to_runqy(
    server: Server, retryable: type[Exception]
) -> None:
    @delivers
    def handle(_payload: dict[str, Any]) -> None:
        raise retryable("later")

    with pytest.raises(retryable):
        handle(request_for(server))
    assert server.seen == []


def test_a_delivery_that_cannot_be_made_raises(server: Server) -> None:
    server.answers = [(403, {}, b'{"error": "no"}')]

    with pytest.raises(DeliveryUndeliverable, match="403") as caught:
        deliver(server, 1)
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize("status", [409, 410])
def test_a_delivery_that_came_too_late_is_done(server: Server, status: int) -> None:
    server.answers = [(status, {}, b'{"error": "too late"}')]

    deliver(server, 1)

    assert len(server.seen) == 1


def test_a_request_of_a_newer_version_raises_and_says_what_to_update() -> None:
    with pytest.raises(BadDelivery, match="Update runqy-delivery"):
        delivers(lambda payload: payload)(
            {"task_id": "d", "delivery": {"version": 99, "sink": "webhook"}}
        )


def test_unknown_fields_of_a_request_are_ignored(server: Server) -> None:
    payload = request_for(server)
    payload["delivery"]["from_the_future"] = {"a": 1}

    delivers(lambda _payload: 1)(payload)

    assert server.seen[0].json()["result"] == 1


@pytest.mark.parametrize(
    "payload",
    [
        {"delivery": {"version": 1}},
        {"task_id": 5, "delivery": {"version": 1}},
        {"task_id": "d", "delivery": {"version": 1, "key": 7}},
        {"task_id": "d", "delivery": {"version": "1"}},
    ],
)
def test_a_request_that_cannot_be_read_raises(payload: Any) -> None:
    with pytest.raises(BadDelivery):
        delivers(lambda _payload: 1)(payload)


def test_a_sink_that_this_version_does_not_know_fails_the_job(server: Server) -> None:
    delivery = deliver(server, 1, sink="carrier-pigeon")

    assert delivery["status"] == "failed"
    assert "carrier-pigeon" in delivery["error"]["message"]


def test_a_request_without_an_address_raises() -> None:
    payload = DeliveryRequest("d-1").to_fields()

    with pytest.raises(DeliveryUndeliverable, match="webhook_url"):
        delivers(lambda _payload: 1)(payload)


def test_nothing_is_written_to_stdout(server: Server) -> None:
    """In a process as a worker starts it: stdout is the worker's protocol there."""
    server.answers = [(503, {}, b"later"), (200, {}, b'{"outcome": "stored"}')]
    code = (
        "import json, sys\n"
        "from runqy_delivery import _retry, delivers\n"
        "_retry.FIRST_DELAY = 0.01\n"
        "delivers(lambda payload: object())(json.loads(sys.argv[1]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(request_for(server))],
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout == ""
    assert "trying again" in done.stderr
    assert len(server.seen) == 2


def test_no_secret_is_logged(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    server.answers = [(503, {}, b"later"), (409, {}, b'{"error": "another"}')]

    deliver(server, 1)

    assert "trying again" in caplog.text
    assert "SECRET" not in caplog.text


class Unspeakable(Exception):
    """An error whose own text cannot be made."""

    def __str__(self) -> str:
        raise ZeroDivisionError


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ValueError("x" * 9_000_000 + "the end"), "the end"),
        (Unspeakable(), "text failed with ZeroDivisionError"),
        (ValueError("\ud800"), "\ud800"),
    ],
    ids=["long", "unspeakable", "half a character"],
)
def test_any_failure_gets_there(server: Server, error: Exception, words: str) -> None:
    @delivers
    def handle(_payload: Any) -> None:
        raise error

    handle(request_for(server))
    seen = server.seen[-1]

    assert len(seen.body) < 200_000
    assert words in seen.json()["error"]["message"]
    assert seen.json()["error"]["type"] == type(error).__name__


def test_a_text_of_another_kind_is_no_json(server: Server) -> None:
    delivery = deliver(server, Result("a <b>ö</b>", content_type="text/html"))

    assert delivery["content_type"] == "text/html"
    assert base64.b64decode(delivery["result"]).decode() == "a <b>ö</b>"


@pytest.mark.parametrize(
    "data",
    [
        b"\xff",
        b"{",
        b"",
        b'{"loss": NaN}',
        b"[1e999]",
        b"\xef\xbb\xbf[]",
        '["x"]'.encode("utf-16"),
    ],
)
def test_bytes_that_are_called_json_must_be(server: Server, data: bytes) -> None:
    delivery = deliver(server, Result(data, content_type="application/json"))

    assert delivery["status"] == "failed"
    assert "and they are not" in delivery["error"]["message"]


def test_a_broken_signing_secret_is_reported_unsigned(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNQY_DELIVERY_SIGNING_SECRET", "whsec_not-base64!")

    delivery = deliver(server, 1)

    assert delivery["status"] == "failed"
    assert "SIGNING_SECRET cannot be used" in delivery["error"]["message"]
    assert "webhook-signature" not in server.seen[0].headers


def test_a_broken_signing_secret_raises_where_the_receiver_wants_signatures(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNQY_DELIVERY_SIGNING_SECRET", "whsec_not-base64!")
    server.answers = [(403, {}, b'{"error": "not valid"}')]

    with pytest.raises(DeliveryUndeliverable, match="SIGNING_SECRET cannot be used"):
        deliver(server, 1)
