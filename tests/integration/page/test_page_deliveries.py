"""The last deliveries and the rejected ones, sent to the receiver in Airflow."""

from __future__ import annotations

import json
import time
import uuid
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from runqy_delivery import Delivery
from runqy_provider.checks.callback import check_callback
from runqy_provider.inbox import callback_url, keys
from runqy_provider.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.stack import Stack

pytestmark = pytest.mark.usefixtures("connect")

#: Seconds within which a record must be there on a loaded machine.
LIMIT = 30.0


@pytest.fixture
def send(client: Any, stack: Stack) -> Callable[..., int]:
    """Send a delivery to the receiver, and return the status of the response."""
    secret = stack.connections["runqy_default"]["extra"]["callback_secret"]

    def send(delivery_id: str, body: bytes, *, forged: bool = False) -> int:
        expires = int(time.time()) + 60
        url = callback_url.url(
            "http://testserver/runqy", secret, "runqy_default", delivery_id, expires
        )
        response = client.post(f"{url}x" if forged else url, content=body)
        return int(response.status_code)

    return send


@pytest.fixture
def delivery_id() -> str:
    """An id that only this test uses."""
    return f"d-{uuid.uuid4().hex}"


def records(
    view_of: Callable[..., Any], name: str, delivery_id: str, count: int
) -> list[dict[str, Any]]:
    """Return the records of a delivery, newest first, once there are so many."""
    end = time.monotonic() + LIMIT
    found: list[dict[str, Any]] = []
    while len(found) < count and time.monotonic() < end:
        recent = view_of("runqy_default")["recent"][name]
        found = [one for one in recent if one["delivery_id"] == delivery_id]
    assert len(found) == count
    return found


def test_deliveries_accepted_ones_are_shown_with_outcome_and_size(
    send: Callable[..., int], view_of: Callable[..., Any], delivery_id: str
) -> None:
    body = Delivery(delivery_id, result={"text": "hello"}).to_json()
    assert [send(delivery_id, body) for _ in range(2)] == [200, 200]

    again, first = records(view_of, "accepted", delivery_id, 2)

    assert (first["outcome"], again["outcome"]) == ("stored", "repeated")
    assert (first["status"], first["size"]) == ("completed", len(body))
    assert abs(first["at"] - time.time()) < 60


def test_deliveries_conflict_is_rejected_with_reason(
    send: Callable[..., int], view_of: Callable[..., Any], delivery_id: str
) -> None:
    for result, status in ((1, 200), (2, 409)):
        body = Delivery(delivery_id, result=result).to_json()
        assert send(delivery_id, body) == status

    [conflict] = records(view_of, "rejected", delivery_id, 1)

    assert conflict["outcome"] == "conflict"


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (b"no JSON", 400, "not a delivery: "),
        (b'{"task_id": "another"}', 400, "not a delivery: task_id in the body is"),
        (b"x" * (8 * 1024 * 1024 + 1), 413, "too large"),
    ],
    ids=["no JSON", "other id", "too large"],
)
def test_deliveries_rejected_body_is_shown_with_reason(
    send: Callable[..., int],
    view_of: Callable[..., Any],
    delivery_id: str,
    body: bytes,
    status: int,
    reason: str,
) -> None:
    assert send(delivery_id, body) == status

    [record] = records(view_of, "rejected", delivery_id, 1)

    assert record["outcome"].startswith(reason)
    assert record["count"] == 1


def test_deliveries_rejected_by_a_separate_receiver_are_shown(
    view_of: Callable[..., Any], stack: Stack, delivery_id: str
) -> None:
    secret = stack.connections["runqy_default"]["extra"]["callback_secret"]
    expires = int(time.time()) + 60
    url, other = (
        callback_url.url(stack.receiver_url, key, "runqy_default", delivery_id, expires)
        for key in (secret, "the secret of another")
    )
    body = json.dumps({"task_id": delivery_id, "status": "done"})
    assert httpx.post(url, content=body).status_code == httpx.codes.BAD_REQUEST
    assert httpx.post(other, content=body).status_code == httpx.codes.FORBIDDEN

    shown = records(view_of, "rejected", delivery_id, 2)

    status, token = sorted((one["outcome"] for one in shown), reverse=True)
    assert "status is 'done'" in status
    assert token == "bad token or expired"


def test_deliveries_missing_signature_is_shown_with_reason(
    send: Callable[..., int],
    view_of: Callable[..., Any],
    connect: Any,
    delivery_id: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from runqy_provider.plugins import receiver

    monkeypatch.setattr(receiver, "REFRESH_AFTER", 0.0)
    connect(signing_secret="whsec_c2lnbnMgYm9kaWVzIGZvciBhbGwgdGVzdHM=")
    body = Delivery(delivery_id, result=1).to_json()
    # The receiver remembers the connection; a bad token makes it look again.
    assert send(delivery_id, body, forged=True) == 403
    assert send(delivery_id, body) == 403

    signature, bad_url = records(view_of, "rejected", delivery_id, 2)
    if signature["outcome"].startswith("bad token"):
        signature, bad_url = bad_url, signature

    assert signature["outcome"].startswith("signature: ")
    assert bad_url["outcome"] == "bad token or expired"
    connect()
    assert send(delivery_id, body, forged=True) == 403
    assert send(delivery_id, body) == 200


def test_deliveries_checks_of_the_callback_url_are_not_shown(
    view_of: Callable[..., Any],
) -> None:
    result = check_callback(load_settings("runqy_default"))
    assert result.status == "ok", result

    recent = view_of("runqy_default")["recent"]["accepted"]

    assert not any(one["delivery_id"].startswith(keys.CHECK_PREFIX) for one in recent)
