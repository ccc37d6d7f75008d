"""The job monitor: jobs that end without a delivery, have no worker, or are silent."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from redis import Redis

from runqy_provider.client.job_status import job_status_reader
from runqy_provider.errors import (
    DeliveryTimeout,
    JobFailed,
    JobVanished,
    Misconfigured,
)
from runqy_provider.hooks.runqy import RunqyHook
from runqy_provider.jobs.monitor import JobMonitor, ObservedJob
from runqy_provider.settings import load_settings
from runqy_provider.sinks.redis_storage import JobResultSource, JobResultUri
from runqy_provider.waiters.race import wait_any
from runqy_provider.waiters.source import StatusUpdate
from runqy_provider.waiters.waiter import close_waiters
from runqy_sandbox.process.net import free_port
from tests.support.harness import outcome_of, run_of, started

if TYPE_CHECKING:
    from collections.abc import Callable

    from runqy_provider.client.job_status import JobStatusReader
    from tests.support.stack import Gate, Stack

pytestmark = pytest.mark.usefixtures("connect", "no_settling", "short_watch_interval")

#: Seconds; as the fixture ``short_watch_interval`` sets them.
INTERVAL, GRACE = 0.3, 0.6


@pytest.fixture(params=["redis", "http"])
def monitor_backend(request: pytest.FixtureRequest, connect: Callable[..., Any]) -> str:
    """How the monitor reads job states: from runqy's Redis, or through its API."""
    if request.param == "http":
        connect(without=("runqy_redis_conn_id",))
    return str(request.param)


@pytest.mark.parametrize("sink", ["webhook", "s3://results/silent"])
def test_monitor_job_without_delivery_fails_task_with_reason(
    monitor_backend: str, sink: str, stack: Stack
) -> None:
    run = started(run_of({}, "silent", sink=sink))
    began = time.time()
    event = run.fire()

    assert time.time() - began < INTERVAL + GRACE + 5
    with pytest.raises(JobVanished) as caught:
        raise run.resume(event).error
    source = {
        "redis": "runqy's Redis at",
        "http": f"runqy at {stack.sandbox.server_url}",
    }
    for message in (
        "without delivering",
        source[monitor_backend],
        "silent.default",
        "runqy worker",
    ):
        assert message in str(caught.value)


def test_monitor_job_without_delivery_fails_task_in_slot() -> None:
    run = run_of({}, "silent", deferrable=False).execute()
    with pytest.raises(JobVanished, match="without delivering"):
        raise run.error


def test_monitor_completed_job_without_delivery_fails_task() -> None:
    run = started(run_of({"numbers": [1]}, "stored_guide"))
    with pytest.raises(JobVanished, match="says it is completed"):
        raise run.resume(run.fire()).error


def test_monitor_job_given_up_by_runqy_fails_with_its_error(
    monitor_backend: str,
) -> None:
    run = started(run_of({"numbers": ["x"]}, "stored_guide"))
    with pytest.raises(JobFailed) as caught:
        raise run.resume(run.fire()).error
    assert "gave job" in str(caught.value)
    message = {"redis": "unsupported operand", "http": "API does not say why"}
    assert message[monitor_backend] in str(caught.value)


@pytest.mark.usefixtures("monitor_backend")
def test_monitor_queue_without_worker_is_logged(
    capsys: pytest.CaptureFixture[str],
) -> None:
    limit = timedelta(seconds=2)
    run = started(run_of({}, "idle", delivery_timeout=limit))
    with pytest.raises(DeliveryTimeout, match=r"within delivery_timeout \(0:00:02\)"):
        raise run.resume(run.fire()).error
    output = capsys.readouterr().out
    assert "no live worker serves the queue 'idle.default'" in output


def test_monitor_job_retried_by_runqy_is_logged(
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = started(run_of({"numbers": ["x"]}, "guide_webhook"))
    with pytest.raises(JobVanished):
        raise run.resume(run.fire()).error
    output = capsys.readouterr().out
    assert "runqy will run job" in output
    assert "The log of the runqy worker says why" in output


def test_monitor_server_unavailable_keeps_waiting(
    connect: Callable[..., Any], capsys: pytest.CaptureFixture[str], stack: Stack
) -> None:
    run = started(run_of({"value": 5, "seconds": 2}))
    url = f"http://127.0.0.1:{free_port()}"
    connect(without=("runqy_redis_conn_id",), fields={"host": url})
    event = run.fire()

    assert event["kind"] == "arrived"
    lines = capsys.readouterr().out.splitlines()
    # Airflow 3.0 prints the requests of httpx, too, and what it sends itself.
    others = ("HTTP Request", "[debug")
    output = "\n".join(
        line for line in lines if not any(other in line for other in others)
    )
    assert f"Polling failed, will retry: runqy at {url}" in output
    assert stack.sandbox.server_url not in output


def test_monitor_wrong_redis_login_keeps_waiting(
    connect: Callable[..., Any],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    stack: Stack,
) -> None:
    run = started(run_of({"value": 5, "seconds": 2}))
    url = f"redis://unknown:wrong@127.0.0.1:{stack.sandbox.redis_port}"
    monkeypatch.setenv("AIRFLOW_CONN_REFUSING", url)
    connect(runqy_redis_conn_id="refusing")
    event = run.fire()

    assert event["kind"] == "arrived"
    output = capsys.readouterr().out
    assert "Polling failed, will retry: Could not look at jobs" in output
    assert "Check login and password of connection 'refusing'" in output
    assert "unknown:wrong" not in output


def test_monitor_watch_seconds_zero_disables_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AIRFLOW__RUNQY__WATCH_SECONDS", "0")
    run = started(run_of({}, "silent", delivery_timeout=timedelta(seconds=3)))
    with pytest.raises(DeliveryTimeout, match="runqy has forgotten"):
        raise run.resume(run.fire()).error


def test_monitor_watch_seconds_negative_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AIRFLOW__RUNQY__WATCH_SECONDS", "-1")
    with pytest.raises(Misconfigured, match="watch_seconds must be 0 or more"):
        outcome_of(run_of({"value": 1}))


async def test_monitor_hundred_jobs_are_read_in_one_poll(
    monitor_backend: str, stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    from runqy_provider.client import job_status
    from runqy_provider.jobs.monitor import monitor_target
    from runqy_provider.models import JobRef
    from runqy_provider.settings import load_settings

    polls: list[int] = []
    first_poll = asyncio.Event()
    for kind in (job_status.RedisJobStatusReader, job_status.ApiJobStatusReader):

        def counted(kind: Any = kind) -> Any:
            poll = kind.poll

            async def wrapper(self: Any, jobs: Any) -> Any:
                polls.append(len(jobs))
                found = await poll(self, jobs)
                if len(jobs) == 100:
                    first_poll.set()
                return found

            return wrapper

        monkeypatch.setattr(kind, "poll", counted())

    def enqueue() -> list[JobRef]:
        with RunqyHook() as hook:
            ids = [hook.enqueue("idle", {"n": n}).job_id for n in range(100)]
        return [
            JobRef(f"d{n}", "webhook", job_id, "idle.default")
            for n, job_id in enumerate(ids)
        ]

    jobs = await asyncio.to_thread(enqueue)
    access = await asyncio.to_thread(load_settings, "runqy_default")
    targets = [monitor_target(access, job) for job in jobs]
    end = time.time() + 3 * INTERVAL
    waits = [wait_any([target], deadline=end) for target in targets if target]
    with Redis.from_url(stack.sandbox.redis_url) as redis:
        before = redis.info("clients")["connected_clients"]
        waiting = asyncio.gather(*waits)
        await first_poll.wait()
        connections = redis.info("clients")["connected_clients"] - before
        assert await waiting == [None] * 100
        await close_waiters()

    assert sum(polls) <= 100 * (polls.count(100) + 1)
    # One connection for the monitor; over HTTP, runqy's server opens some itself.
    assert connections <= (1 if monitor_backend == "redis" else 8)


def test_monitor_worker_killed_is_logged(
    gate: Gate, stack: Stack, capsys: pytest.CaptureFixture[str]
) -> None:
    """Runqy reports such a job as active until its lease has expired."""
    limit = timedelta(seconds=4)
    run = started(run_of(dict(gate.closed), delivery_timeout=limit))
    with Redis.from_url(stack.sandbox.redis_url) as redis:
        key = f"asynq:{{helper.default}}:t:{run.xcoms['runqy_job']['job_id']}"
        until = time.monotonic() + 10
        while redis.hget(key, "state") != b"active" and time.monotonic() < until:
            time.sleep(0.05)
        stack.sandbox.worker.kill()
        for worker in redis.keys("asynq:workers:*"):
            redis.delete(worker)  # runqy lets these keys expire
    try:
        assert run.fire()["kind"] == "deadline"
    finally:
        stack.sandbox.worker.start()
    assert "its worker was lost" in capsys.readouterr().out


def test_monitor_lease_expired_is_logged_while_other_workers_live(
    gate: Gate, stack: Stack, capsys: pytest.CaptureFixture[str]
) -> None:
    """The test sets the lease back, as a worker may hang for hours."""
    limit = timedelta(seconds=4)
    run = started(run_of(dict(gate.closed), delivery_timeout=limit))
    job_id = run.xcoms["runqy_job"]["job_id"]
    leases = "asynq:{helper.default}:lease"
    with Redis.from_url(stack.sandbox.redis_url) as redis:
        until = time.monotonic() + 10
        while redis.zscore(leases, job_id) is None and time.monotonic() < until:
            time.sleep(0.05)
        stack.sandbox.worker.kill()
        redis.zadd(leases, {job_id: time.time() - 60}, xx=True)
    try:
        assert run.fire()["kind"] == "deadline"
    finally:
        stack.sandbox.worker.start()
    output = capsys.readouterr().out
    assert (
        f"Job {job_id} is active, but its lease has expired: its worker was lost"
        in output
    )


@pytest.fixture
def reader(monitor_backend: str) -> JobStatusReader:
    """What the monitor reads with: runqy's Redis, or its API."""
    del monitor_backend
    settings = load_settings("runqy_default")
    return job_status_reader(settings.connection, settings.runqy_redis)


def pending_job(stack: Stack) -> tuple[str, Callable[..., None]]:
    """Enqueue a job that no worker takes; return its id, and what removes it."""
    with RunqyHook() as hook:
        job_id = hook.enqueue("idle", {"n": 1}).job_id

    def remove(*, all_traces: bool) -> None:
        with Redis.from_url(stack.sandbox.redis_url) as redis:
            redis.delete(f"asynq:{{idle.default}}:t:{job_id}")
            if all_traces:  # as FLUSHALL does, for all jobs
                redis.delete(f"asynq:t:{job_id}")

    return job_id, remove


def key_of(kind: Any, job_id: str) -> str:
    """Return the key by which a source knows a wait for this job."""
    if kind is JobMonitor:
        return ObservedJob("idle.default", job_id, 0.0).key
    return str(JobResultUri("runqy_default", "idle.default", job_id, "d"))


@pytest.mark.parametrize("kind", [JobMonitor, JobResultSource])
@pytest.mark.parametrize(
    ("all_traces", "meaning"), [(True, "was emptied"), (False, "it was deleted")]
)
def test_monitor_pending_job_gone_says_what_was_last_seen(
    kind: Any, all_traces: bool, meaning: str, reader: JobStatusReader, stack: Stack
) -> None:
    source = kind(reader, 0.0) if kind is JobMonitor else kind(reader)
    job_id, remove = pending_job(stack)
    key = key_of(kind, job_id)

    async def scenario() -> Any:
        await source.poll([key])
        remove(all_traces=all_traces)
        result = (await source.poll([key]))[key]
        await source.aclose()
        return result

    error = asyncio.run(scenario())
    assert isinstance(error, JobVanished)
    assert "was pending when last seen" in str(error)
    assert meaning in str(error)
    assert ("@delivers" in str(error)) is (kind is JobMonitor and not all_traces)


async def test_monitor_grace_of_a_job_is_waited_once(
    reader: JobStatusReader, stack: Stack
) -> None:
    monitor = JobMonitor(reader, GRACE)
    job_id, remove = await asyncio.to_thread(pending_job, stack)
    key = key_of(JobMonitor, job_id)
    remove(all_traces=False)
    try:
        assert isinstance((await monitor.poll([key]))[key], StatusUpdate)
        assert await anext(monitor.hints()) == key
        for _ in range(2):  # the wait goes on while a source cannot be polled
            assert isinstance((await monitor.poll([key]))[key], JobVanished)
    finally:
        await monitor.aclose()
