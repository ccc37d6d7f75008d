"""A result that cannot be written as JSON is kept as text; the failure says where."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runqy_delivery import DeliveryRequest, Result, delivers
from runqy_delivery.unencodable import MAX_IN_MESSAGE
from tests.delivery.helpers import s3_payload, webhook_payload

if TYPE_CHECKING:
    from pathlib import Path

    from tests.delivery.helpers import HttpServer

FRAMES = {"frames": [1, 2, 3, object()], "text": "ü"}


def test_delivers_not_encodable_failure_has_repr_and_advice(server: HttpServer) -> None:
    delivers(lambda _payload: FRAMES)(webhook_payload(server))

    error = server.requests[0].json()["error"]
    assert error["type"] == "ResultNotEncodable"
    assert error["message"] == (
        'result["frames"][3] is of the type object, which JSON does not have: <object '
        "object>. Return a JSON value there, or convert it: @delivers(encoder=...). "
        "The repr() of the whole result: {'frames': [1, 2, 3, <object object>], "
        "'text': 'ü'}"
    )


def test_delivers_not_encodable_same_failure_twice_is_identical(
    server: HttpServer,
) -> None:
    """The inbox takes a second failure as a repetition only if it says the same."""
    for _ in range(2):
        delivers(lambda _payload: [object()])(webhook_payload(server))

    first, second = (request.json()["error"] for request in server.requests)
    assert first["message"] == second["message"]


def test_delivers_not_encodable_repr_in_message_is_bounded(server: HttpServer) -> None:
    delivers(lambda _payload: ["x" * 100_000, 1j])(webhook_payload(server))

    message = server.requests[0].json()["error"]["message"]
    assert message.endswith("xxx...")
    assert MAX_IN_MESSAGE < len(message) < MAX_IN_MESSAGE + 500


def test_delivers_not_encodable_repr_is_beside_the_result(
    server: HttpServer, tmp_path: Path
) -> None:
    request = DeliveryRequest(
        "d-1",
        sink="file",
        bucket=str(tmp_path),
        key="renders/d-1",
        webhook_url=f"{server.url}/hook",
    )

    delivers(lambda _payload: Result(FRAMES))(request.to_fields())

    path = tmp_path / "renders" / "d-1.repr.txt"
    kept = path.read_text("utf-8")
    assert kept == "{'frames': [1, 2, 3, <object object>], 'text': 'ü'}"
    assert [each.name for each in path.parent.iterdir()] == ["d-1.repr.txt"]
    message = server.requests[0].json()["error"]["message"]
    assert message.endswith(f"The repr() of the whole result is in file://{path}.")


def test_delivers_not_encodable_store_that_fails_gets_repr_in_message(
    server: HttpServer,
) -> None:
    request = DeliveryRequest(
        "d-1",
        sink="file",
        bucket="/proc/nowhere",
        key="d-1",
        webhook_url=f"{server.url}/hook",
    )

    delivers(lambda _payload: [1j])(request.to_fields())

    message = server.requests[0].json()["error"]["message"]
    assert message.endswith("The repr() of the whole result: [1j]")


def test_delivers_not_encodable_signed_url_is_not_used_for_repr(
    server: HttpServer,
) -> None:
    """A signed URL is for the key of the result: an object there means success."""
    delivers(lambda _payload: [1j])(s3_payload(server, webhook=False))

    (put,) = server.requests
    assert put.path.startswith("/results/renders/d-1.failed.json")
    assert "whole result: [1j]" in put.json()["error"]["message"]


def test_delivers_with_options_writes_result_and_metadata(server: HttpServer) -> None:
    @delivers(nan="null", encoder=lambda value: [value.real, value.imag])
    def handle(_payload: dict[str, Any]) -> Any:
        return Result({"a": float("nan"), "b": 1 + 2j}, metadata={"c": 3j})

    handle(webhook_payload(server))

    delivery = server.requests[0].json()
    assert delivery["result"] == {"a": None, "b": [1.0, 2.0]}
    assert delivery["metadata"] == {"c": [0.0, 3.0]}


def test_delivers_encoder_that_raises_is_a_failure(server: HttpServer) -> None:
    def encoder(_value: Any) -> Any:
        raise KeyError("no such colour")

    delivers(encoder=encoder)(lambda _payload: [1j])(webhook_payload(server))

    error = server.requests[0].json()["error"]
    assert error["type"] == "KeyError"
    assert "in encoder" in error["traceback"]
