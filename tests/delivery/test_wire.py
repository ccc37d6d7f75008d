"""The wire format: what is written can be read, and what is not valid is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from runqy_delivery import BadDelivery, Delivery, DeliveryRequest, JobError


def test_request_from_payload_equals_the_one_written() -> None:
    request = DeliveryRequest(
        "d-1",
        sink="s3",
        webhook_url="https://a/b",
        max_bytes=5,
        bucket="b",
        key="k",
        put_url="https://s3/k",
        failed_key="f",
        failed_put_url="https://s3/f",
    )

    assert DeliveryRequest.from_payload({"mine": 1, **request.to_fields()}) == request


def test_request_to_fields_uses_the_names_of_runqys_guide() -> None:
    fields = DeliveryRequest("d-1", webhook_url="https://a/b").to_fields()

    assert fields["task_id"] == "d-1"
    assert fields["webhook_url"] == "https://a/b"


def test_request_repr_shows_no_secret() -> None:
    shown = repr(DeliveryRequest("d-1", webhook_url="W", put_url="P"))

    assert "'W'" not in shown
    assert "'P'" not in shown


@pytest.mark.parametrize(
    ("body", "delivery"),
    [
        (
            b'{"task_id": "d", "status": "completed", "result": [1]}',
            Delivery("d", result=[1]),
        ),
        (
            b'{"task_id": "d", "result_url": "https://x", "new": {}}',
            Delivery("d", result_url="https://x"),
        ),
        (
            b'{"task_id": "d", "status": "failed", "error": "boom"}',
            Delivery("d", status="failed", error=JobError("boom")),
        ),
        (
            b'{"task_id": "d", "status": "progress", "fraction": 1, "text": "t"}',
            Delivery("d", status="progress", fraction=1, text="t"),
        ),
    ],
)
def test_delivery_from_json_reads_messages_of_runqys_guide(
    body: bytes, delivery: Delivery
) -> None:
    assert Delivery.from_json(body) == delivery


def test_delivery_from_json_failure_without_error_gets_a_message() -> None:
    delivery = Delivery.from_json(b'{"task_id": "d", "status": "failed"}')

    assert delivery.error is not None
    assert "no reason" in delivery.error.message


@pytest.mark.parametrize(
    "delivery",
    [
        Delivery("d", result={"a": None}),
        Delivery("d", result="eA==", encoding="base64", content_type="x/y", size=1),
        Delivery("d", result_url="s3://b/k", metadata={"w": 1}),
        Delivery("d", status="failed", error=JobError("m", "T", "tb")),
        Delivery("d", status="progress", fraction=0.5, text="half"),
    ],
)
def test_delivery_from_json_equals_the_one_written(delivery: Delivery) -> None:
    assert Delivery.from_json(delivery.to_json()) == delivery


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not json",
        b"\xff\xfe",
        b"[1]",
        b"null",
        b"{}",
        b'{"task_id": 5}',
        b'{"task_id": ""}',
        b'{"task_id": "d", "status": "done"}',
        b'{"task_id": "d", "status": []}',
        b'{"task_id": "d", "result": NaN}',
        b'{"task_id": "d", "result": 1e999}',
        b'{"task_id": "d", "version": 2}',
        b'{"task_id": "d", "version": true}',
        b'{"task_id": "d", "encoding": "rot13"}',
        b'{"task_id": "d", "size": "big"}',
        b'{"task_id": "d", "size": -1}',
        b'{"task_id": "d", "size": 1.5}',
        b'{"task_id": "d", "size": 1' + b"0" * 400 + b"}",
        b'{"task_id": "d", "fraction": true}',
        b'{"task_id": "d", "fraction": 1' + b"0" * 400 + b"}",
        b'{"task_id": "d", "fraction": -1' + b"0" * 400 + b"}",
        b'{"task_id": "d", "metadata": []}',
        b'{"task_id": "d", "result": ' + b"[" * 100_000,
        b'{"task_id": "d", "result": ' + b"9" * 10_000 + b"}",
    ],
)
def test_delivery_from_json_invalid_body_is_refused(body: bytes) -> None:
    with pytest.raises(BadDelivery):
        Delivery.from_json(body)


@pytest.mark.parametrize("name", ["size", "fraction"])
@pytest.mark.parametrize("number", [2**1024, -(2**1024), float("inf"), float("nan")])
def test_delivery_number_beyond_double_is_refused(name: str, number: Any) -> None:
    """Parsed JSON is checked, too: the caller may have parsed it less strictly."""
    with pytest.raises(BadDelivery, match=name):
        Delivery.from_fields({"task_id": "d", name: number})


@pytest.mark.parametrize("number", [0, 1, 2**63, 10**308, -(10**308), 0.5, 1.5e308])
def test_delivery_number_within_double_is_accepted(number: Any) -> None:
    assert Delivery.from_fields({"task_id": "d", "fraction": number}).fraction == number


def test_delivery_is_final_unless_progress() -> None:
    assert Delivery("d", status="completed").is_final
    assert Delivery("d", status="failed").is_final
    assert not Delivery("d", status="progress").is_final


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ({"message": ""}, "gave no reason"),
        ({"message": None, "type": "KeyError"}, "gave no reason"),
        ({"code": 3}, '{"code": 3}'),
        (["two", "lines"], '["two", "lines"]'),
        (7, "7"),
        ("  ", "gave no reason"),
    ],
)
def test_delivery_from_json_any_error_becomes_a_message(
    error: Any, message: str
) -> None:
    body = json.dumps({"task_id": "d", "status": "failed", "error": error}).encode()
    job_error = Delivery.from_json(body).error

    assert job_error is not None
    assert message in job_error.message


def test_delivery_error_nested_too_deeply_is_refused() -> None:
    """At some depths it can be read, but not be written again."""
    lists: Any = "deep"
    for _ in range(20_000):
        lists = [lists]
    with pytest.raises(BadDelivery, match="nested too deeply"):
        Delivery.from_fields({"task_id": "d", "status": "failed", "error": lists})
