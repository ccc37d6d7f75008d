"""A retry takes over the job of the previous attempt; a cleared task gets a new one."""

from __future__ import annotations

import dataclasses
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from redis import Redis

from runqy_provider.errors import (
    DeliveryIdTaken,
    DeliveryTimeout,
    HeartbeatTimeout,
    JobFailed,
    NotThere,
    SinkUnavailable,
)
from runqy_provider.hooks.runqy import RunqyHook
from runqy_provider.jobs import launch
from runqy_sandbox.process.net import free_port
from tests.support.harness import Run, outcome_of, run_of, started
from tests.support.versions import HAS_STATE_STORE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.stack import Gate, Stack

pytestmark = pytest.mark.usefixtures("connect", "no_settling")


def job_of(run: Run) -> str:
    return str(run.xcoms["runqy_job"]["job_id"])


def jobs_in(stack: Stack, queue: str) -> int:
    with Redis.from_url(stack.sandbox.redis_url) as redis:
        return len(redis.keys(f"asynq:{{{queue}}}:t:*"))


def deliver(run: Run, **fields: Any) -> None:
    with RunqyHook() as hook:
        payload = hook.get_job(job_of(run)).payload
    body = {"task_id": payload["task_id"], **fields}
    httpx.post(payload["webhook_url"], json=body).raise_for_status()


def idle_run(**arguments: Any) -> Run:
    run = run_of({"n": time.time_ns()}, "idle", **arguments).execute()
    assert run.state == "deferred"
    return run


def test_retry_job_pending_waits_for_it() -> None:
    first = idle_run()
    second = first.retried().execute()
    deliver(second, result=5)

    assert job_of(second) == job_of(first)
    assert second.resume(second.fire()).value == 5


def test_retry_result_unread_is_taken(stack: Stack) -> None:
    first = idle_run()
    deliver(first, result=[1, 2])
    with Redis.from_url(stack.sandbox.redis_url) as redis:
        redis.delete(
            f"asynq:{{idle.default}}:t:{job_of(first)}"
        )  # as runqy does after a while
    before = jobs_in(stack, "idle.default")
    second = first.retried().execute()

    assert (second.state, second.value) == ("success", [1, 2])
    assert jobs_in(stack, "idle.default") == before


def test_retry_job_failed_enqueues_new_job() -> None:
    run = run_of({"error": "too dark"})
    with pytest.raises(JobFailed):
        outcome_of(run)
    again = run.retried()
    with pytest.raises(JobFailed):
        outcome_of(again)

    assert job_of(again) != job_of(run)


def test_clear_task_enqueues_new_job(stack: Stack) -> None:
    first = idle_run()
    second = first.retried(is_cleared=True).execute()
    assert job_of(second) != job_of(first)

    done = run_of({"value": 3})
    assert outcome_of(done) == 3
    again = done.retried(is_cleared=True)
    assert outcome_of(again) == 3
    assert job_of(again) != job_of(done)


def test_retry_payload_changed_replaces_pending_job(stack: Stack) -> None:
    first = idle_run()
    other = dataclasses.replace(first.retried(), task=run_of({"n": 1}, "idle").task)
    other.execute()

    assert job_of(other) != job_of(first)
    with Redis.from_url(stack.sandbox.redis_url) as redis:
        # It had not started, and no task waits for it any more.
        assert not redis.exists(f"asynq:{{idle.default}}:t:{job_of(first)}")


def test_retry_job_id_not_stored_finds_pending_job(
    stack: Stack,
) -> None:
    first = idle_run()
    first.change_record(job_id=None)  # as before runqy's response
    before = jobs_in(stack, "idle.default")
    second = first.retried().execute()

    assert job_of(second) == job_of(first)
    assert jobs_in(stack, "idle.default") == before


def test_retry_without_any_store_takes_delivered_result(
    connect: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, gate: Gate
) -> None:
    """As before Airflow 3.3 if no Redis is in use."""
    monkeypatch.setattr(launch, "attempt_store", lambda *_: None)
    connect(redis_conn_id="nothing_there", without=("callback_secret",))
    payload = {"value": 7, **gate.closed}
    first = started(run_of(payload, sink="s3://results/no-store"))
    gate.open()
    first.fire()  # the result has arrived, and the task ends before it reads it
    second = first.retried().execute()

    assert (second.state, second.value) == ("success", 7)
    assert (
        second.xcoms["runqy_job"]["delivery_id"]
        == (first.xcoms["runqy_job"]["delivery_id"])
    )


def test_retry_failure_stored_by_runqy_enqueues_new_job() -> None:
    """Runqy reports this job as completed; only its result contains the failure."""
    run = run_of({"error": "too dark"}, "stored", sink="redis_storage")
    with pytest.raises(JobFailed):
        outcome_of(run)
    again = run.retried()
    with pytest.raises(JobFailed):
        outcome_of(again)

    assert job_of(again) != job_of(run)


def test_retry_result_unreadable_enqueues_new_job() -> None:
    run = run_of({"n": time.time_ns()}, "idle", sink="s3://results/poison").execute()
    deliver(run, result_url="s3://results/poison/nothing-here")
    with pytest.raises(NotThere):
        raise run.resume(run.fire()).error
    again = run.retried().execute()

    assert again.state == "deferred"
    assert job_of(again) != job_of(run)


def test_retry_result_read_before_is_taken_again() -> None:
    first = run_of({"value": 3})
    assert outcome_of(first) == 3
    again = first.retried()

    assert outcome_of(again) == 3
    assert job_of(again) == job_of(first)


def test_recreated_run_ignores_result_of_deleted_run() -> None:
    """It has the same DAG, run_id, task and attempt as a run that was deleted."""
    first = run_of({"value": "old"})
    assert outcome_of(first) == "old"
    refresh = run_of({"value": "new"})
    refresh.run_id = first.run_id

    assert outcome_of(refresh) == "new"


@pytest.mark.skipif(not HAS_STATE_STORE, reason="the record in Redis would be found")
def test_operator_id_with_a_delivery_is_not_used_again() -> None:
    """As in a loop whose iterations Airflow does not tell apart by run and task."""
    first = run_of({"value": 1})
    outcome_of(first)
    again = Run(first.task, run_id=first.run_id, started_at=first.started_at)

    assert outcome_of(again) == 1
    jobs = [run.xcoms["runqy_job"] for run in (first, again)]
    assert jobs[0]["delivery_id"] != jobs[1]["delivery_id"]
    assert jobs[0]["job_id"] != jobs[1]["job_id"]
    assert again.record["delivery_id"] == jobs[1]["delivery_id"]


@pytest.mark.parametrize("sink", ["webhook", "s3://results/taken"])
def test_submit_id_with_a_delivery_is_refused(sink: str, stack: Stack) -> None:
    first = run_of({"value": 1}, sink=sink)
    outcome_of(first)
    before = jobs_in(stack, "helper.default")

    with RunqyHook() as hook, pytest.raises(DeliveryIdTaken):
        hook.submit(
            sink,
            runqy_queue="helper",
            payload={"value": 2},
            delivery_id=first.xcoms["runqy_job"]["delivery_id"],
            deadline=time.time() + 60,
        )
    assert jobs_in(stack, "helper.default") == before


@pytest.fixture
def set_inbox(
    connect: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., None]:
    """Make the inbox's Redis unavailable and available again; runqy's Redis stays."""

    def set_available(*, is_available: bool) -> None:
        if is_available:
            connect()
            return
        monkeypatch.setenv("AIRFLOW_CONN_GONE", f"redis://127.0.0.1:{free_port()}")
        connect(redis_conn_id="gone")

    return set_available


def test_retry_inbox_unavailable_enqueues_nothing(
    set_inbox: Callable[..., None], stack: Stack
) -> None:
    """The job has ended, and its result is in an inbox that cannot be read now."""
    first = idle_run()
    deliver(first, result=[1, 2])
    with Redis.from_url(stack.sandbox.redis_url) as redis:
        redis.delete(f"asynq:{{idle.default}}:t:{job_of(first)}")
    set_inbox(is_available=False)
    second = first.retried().execute()
    with pytest.raises(SinkUnavailable):
        raise second.error

    set_inbox(is_available=True)
    assert second.record["job_id"] == job_of(first)
    third = second.retried().execute()
    assert (third.state, third.value) == ("success", [1, 2])


def test_retry_sink_missing_for_a_moment_keeps_job(tmp_path: Path) -> None:
    """Like a share that is not mounted: the next try waits for the same job."""
    folder = tmp_path / "share"
    folder.mkdir()
    first = run_of({}, "idle", sink=f"file://{folder}")
    first.max_tries = 1
    started(first)
    folder.rmdir()
    with pytest.raises(NotThere):
        raise first.resume(first.fire()).error
    folder.mkdir()
    second = first.retried().execute()

    assert second.state == "deferred"
    assert job_of(second) == job_of(first)


#: A limit that ends the wait for a job that no worker takes.
LIMITS = {
    "delivery_timeout": ({"delivery_timeout": timedelta(seconds=0.5)}, DeliveryTimeout),
    "heartbeat_timeout": (
        {"heartbeat_timeout": timedelta(seconds=0.5)},
        HeartbeatTimeout,
    ),
}


def timed_out(run: Run, error: type[Exception]) -> Run:
    """Run a task until its wait ends, and check by which error."""
    run.execute()
    if run.state == "deferred":
        run.resume(run.fire())
    assert isinstance(run.error, error)
    return run


def is_in_queue(run: Run, stack: Stack) -> bool:
    job = run.xcoms["runqy_job"]
    with Redis.from_url(stack.sandbox.redis_url) as redis:
        return bool(redis.exists(f"asynq:{{{job['runqy_queue']}}}:t:{job['job_id']}"))


@pytest.mark.parametrize(
    ("transport", "limit", "deferrable"),
    [
        ("http", "delivery_timeout", True),
        ("redis", "delivery_timeout", False),
        ("redis", "heartbeat_timeout", True),
    ],
)
def test_last_attempt_timed_out_pending_job_is_deleted(
    transport: str,
    limit: str,
    deferrable: bool,
    stack: Stack,
    connect: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    connect(transport=transport)
    # Silence counts from the start if the job itself is not observed.
    monkeypatch.setenv("AIRFLOW__RUNQY__WATCH_SECONDS", "0")
    arguments, error = LIMITS[limit]
    run = timed_out(run_of({}, "idle", deferrable=deferrable, **arguments), error)

    assert not is_in_queue(run, stack)


def test_last_attempt_timed_out_delete_abandoned_false_keeps_job(stack: Stack) -> None:
    arguments, error = LIMITS["delivery_timeout"]
    run = run_of({}, "idle", delete_abandoned=False, **arguments)

    assert is_in_queue(timed_out(run, error), stack)


def test_attempt_timed_out_before_a_retry_keeps_job(stack: Stack) -> None:
    arguments, error = LIMITS["delivery_timeout"]
    first = run_of({}, "idle", **arguments)
    first.max_tries = 1
    timed_out(first, error)
    assert is_in_queue(first, stack)

    second = timed_out(first.retried(), error)
    assert job_of(second) == job_of(first)
    assert not is_in_queue(second, stack), "no attempt is left"


def test_deferral_timeout_result_delivered_is_taken() -> None:
    """Airflow itself ends a deferral, two minutes after the trigger's deadline."""
    run = idle_run()
    deliver(run, result=7)
    assert run.time_out().value == 7


def test_deferral_timeout_without_result_raises_delivery_timeout(stack: Stack) -> None:
    run = idle_run()
    with pytest.raises(DeliveryTimeout, match="triggerer"):
        raise run.time_out().error
    assert not is_in_queue(run, stack), "no attempt is left"
