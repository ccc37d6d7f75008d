"""Progress of jobs: it is logged, and a job without progress times out."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from redis import Redis

from runqy_provider.errors import (
    DeliveryTimeout,
    HeartbeatTimeout,
    Misconfigured,
)
from runqy_provider.hooks.runqy import RunqyHook
from tests.support.harness import outcome_of, run_of, started

if TYPE_CHECKING:
    from tests.support.stack import Gate, Stack

pytestmark = pytest.mark.usefixtures("connect", "no_settling", "short_watch_interval")


def test_progress_received_is_logged(
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = started(run_of({"value": 1, "progress": 0.25, "seconds": 1}))
    assert run.fire()["kind"] == "arrived"
    output = capsys.readouterr().out
    assert "Progress: 25% rendering" in output


def test_delivery_timeout_message_contains_last_progress(gate: Gate) -> None:
    limit = timedelta(seconds=2)
    payload = {"progress": 0.5, **gate.closed}
    run = started(run_of(payload, execution_timeout=limit))
    with pytest.raises(DeliveryTimeout) as caught:
        raise run.resume(run.fire()).error
    assert "within execution_timeout (0:00:02)" in str(caught.value)
    assert "Last progress: 50% rendering." in str(caught.value)


def test_heartbeat_timeout_silent_job_fails_and_retry_enqueues(
    gate: Gate,
) -> None:
    outcome_of(run_of({"value": 0}))  # so that the task process has started and is idle
    limit = timedelta(seconds=1)
    payload = {"value": 7, "progress": 0.5, **gate.closed}
    run = started(run_of(payload, heartbeat_timeout=limit))
    event = run.fire()
    with pytest.raises(HeartbeatTimeout) as caught:
        raise run.resume(event).error
    assert "within heartbeat_timeout (0:00:01)" in str(caught.value)
    assert "Last progress: 50% rendering." in str(caught.value)

    again = started(run.retried())
    assert again.xcoms["runqy_job"]["job_id"] != run.xcoms["runqy_job"]["job_id"]


def test_heartbeat_timeout_below_poll_interval_ignores_pending_job(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The timeout is shorter than the time in the slot, too."""
    monkeypatch.setenv("AIRFLOW__RUNQY__WATCH_SECONDS", "30")
    run = started(
        run_of(
            {},
            "idle",
            heartbeat_timeout=timedelta(seconds=0.2),
            delivery_timeout=timedelta(seconds=2),
            defer_after=timedelta(seconds=0.5),
        )
    )

    assert run.fire()["kind"] == "deadline"


def test_heartbeat_timeout_time_in_queue_is_not_counted(
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = started(
        run_of(
            {},
            "idle",
            heartbeat_timeout=timedelta(seconds=1),
            delivery_timeout=timedelta(seconds=3),
        )
    )
    with pytest.raises(DeliveryTimeout):
        raise run.resume(run.fire()).error
    output = capsys.readouterr().out
    assert "no live worker" in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sink": "redis_storage"}, "'redis_storage' cannot be combined"),
        ({"sink": "sql://db/tasks"}, r"sink=\['sql://db/tasks', 'webhook'\]"),
        ({"heartbeat_timeout": timedelta(0)}, "longer than zero"),
    ],
)
def test_heartbeat_timeout_unusable_is_refused(
    arguments: dict[str, Any], message: str
) -> None:
    arguments = {"heartbeat_timeout": timedelta(seconds=1), **arguments}
    with pytest.raises(Misconfigured, match=message):
        outcome_of(run_of({}, **arguments))


def test_progress_malformed_is_shortened_and_not_a_result(stack: Stack) -> None:
    """A progress message is never taken for a result, whatever its fields are."""
    run = started(run_of({}, "idle"))
    with RunqyHook() as hook:
        job = hook.get_job(run.xcoms["runqy_job"]["job_id"])
    body = {
        "task_id": job.payload["task_id"],
        "status": "progress",
        "result": "no result",
        "fraction": 7,
        "text": "a\nb" + "x" * 5000,
    }
    answer = httpx.post(job.payload["webhook_url"], json=body)

    assert answer.status_code == 202
    with Redis.from_url(stack.sandbox.redis_url) as redis:
        [key] = redis.keys(f"*progress:{job.payload['task_id']}")
        kept = redis.get(key)
    assert kept is not None
    assert len(kept) < 700
    assert b"\\n" not in kept
    assert b"1.0" in kept
