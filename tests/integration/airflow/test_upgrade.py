"""Tasks that version 0.1.0 deferred end well with this version.

``recorded_0_1_0.json`` has what that version wrote to Airflow's database (triggers,
events, the record of an attempt) and to the inbox's Redis.
"""

from __future__ import annotations

import json
import pkgutil
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest
from redis import Redis

from runqy_provider.errors import DeliveryTimeout, HeartbeatTimeout, Misconfigured
from runqy_provider.inbox.callback_url import is_valid
from runqy_provider.jobs.attempt import Attempt
from runqy_provider.models import DeliveryEvent
from tests.support.harness import run_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.stack import Stack

RECORDED = json.loads(
    (Path(__file__).parent / "recorded_0_1_0.json").read_text(encoding="utf-8")
)
RESULT = {"text": "recorded"}

pytestmark = pytest.mark.usefixtures("connect", "no_settling")


@pytest.fixture
def inbox(stack: Stack) -> Iterator[None]:
    """The inbox as version 0.1.0 left it."""
    with Redis.from_url(stack.sandbox.redis_url) as redis:
        for key, kept in RECORDED["inbox"].items():
            if kept["type"] == "hash":
                redis.hset(key, mapping=kept["value"])
            else:
                redis.set(key, kept["value"])
        yield
        redis.delete(*RECORDED["inbox"])


@pytest.mark.parametrize("row", RECORDED["triggers"], ids=lambda row: row[1]["sink"])
def test_upgrade_trigger_row_is_read_and_written_unchanged(row: list[Any]) -> None:
    path, arguments = row

    trigger = pkgutil.resolve_name(path)(**arguments)

    assert trigger.serialize() == (path, arguments)


@pytest.mark.usefixtures("inbox")
def test_upgrade_trigger_row_finds_recorded_delivery() -> None:
    run = run_of(runqy_queue="idle").execute()
    path, arguments = RECORDED["triggers"][0]
    trigger = pkgutil.resolve_name(path)(**{**arguments, "task_end": None})

    run.resume(run.fire(trigger))

    assert run.value == RESULT


@pytest.mark.usefixtures("inbox")
def test_upgrade_recorded_arrival_returns_result() -> None:
    run = run_of(runqy_queue="idle").execute()

    run.resume(RECORDED["events"]["arrived"])

    assert run.value == RESULT
    assert (
        run.xcoms["runqy_delivery"]["where"] == RECORDED["events"]["arrived"]["where"]
    )


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("deadline", DeliveryTimeout),
        ("silent", HeartbeatTimeout),
        ("error", Misconfigured),
    ],
)
def test_upgrade_recorded_event_raises_its_error(
    kind: str, error: type[Exception]
) -> None:
    run = run_of(runqy_queue="idle").execute()

    run.resume(RECORDED["events"][kind])

    assert isinstance(run.error, error)


@pytest.mark.parametrize("kind", sorted(RECORDED["events"]))
def test_upgrade_recorded_event_has_all_its_fields(kind: str) -> None:
    recorded = RECORDED["events"][kind]

    payload = DeliveryEvent.from_payload(recorded).to_payload()

    assert {key: value for key, value in recorded.items() if value} == {
        key: value for key, value in payload.items() if value
    }


def test_upgrade_recorded_attempt_is_read_and_written_unchanged() -> None:
    attempt = Attempt.from_json(RECORDED["attempt"])

    assert attempt.to_json() == RECORDED["attempt"]


def test_upgrade_recorded_callback_url_is_still_valid() -> None:
    parts = urlsplit(RECORDED["callback_url"])
    _, conn_id, _, _, delivery_id = parts.path.split("/")
    query = {key: value[0] for key, value in parse_qs(parts.query).items()}

    assert is_valid(
        [RECORDED["secret"]],
        conn_id,
        delivery_id,
        query["expires"],
        query["token"],
        now=1.0,
    )
