"""What the log of a waiting task says of a job that is slow, or cannot deliver."""

from __future__ import annotations

import dataclasses
import re
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from runqy_provider.client.job_status import QueuePosition
from runqy_provider.errors import DeliveryTimeout, JobVanished
from runqy_provider.jobs import monitor
from runqy_provider.jobs.monitor import PendingJobs
from runqy_sandbox.process.net import free_port
from tests.support.harness import run_of, started
from tests.support.web_page import web_page

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.stack import Gate, Stack

pytestmark = pytest.mark.usefixtures("connect", "no_settling", "short_watch_interval")

LIMIT = timedelta(seconds=3)


def test_pending_jobs_report_comes_late_and_at_growing_intervals(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1000.0
    monkeypatch.setattr("time.time", lambda: now)
    jobs, due = PendingJobs(), []
    for now in range(1010, 2000, 30):
        if jobs.update(["j"], {"j": 1000.0}):
            due.append(now - 1000)
            jobs.report("j", "1", "q.default", QueuePosition(4, 2))

    assert due == [40, 100, 220, 460, 940]
    assert jobs.message("j") == (
        "Job 1 has been pending for 940 s in the queue 'q.default', 4 jobs before it. "
        "Live workers of the queue: 2."
    )
    jobs.update(["another"], {})
    assert jobs.message("j"), "it was not looked at"
    jobs.update(["j"], {})
    assert not jobs.message("j")


def test_pending_jobs_time_of_enqueue_unknown_is_said() -> None:
    jobs = PendingJobs()
    jobs.update(["j"], {"j": 0.0})
    jobs.report("j", "1", "q.default", QueuePosition(4, 2))

    assert "for at least 0 s" in jobs.message("j")


def test_monitor_slow_job_position_and_workers_are_logged(
    gate: Gate, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(monitor, "SLOW_AFTER", 0.0)
    blockers = [
        run_of(dict(gate.closed), delivery_timeout=LIMIT).execute() for _ in range(3)
    ]
    run = started(run_of({}, delivery_timeout=LIMIT))
    assert all(each.state == "deferred" for each in blockers)
    event = run.fire()

    # Two of the three run; the third and this one wait. There may be jobs and workers
    # of other tests.
    output = capsys.readouterr().out
    position, workers = re.findall(
        r"in the queue 'helper.default', (\d+) jobs before it. "
        r"Live workers of the queue: (\d+)\.",
        output,
    )[-1]
    assert int(position) >= 1
    assert int(workers) >= 1
    with pytest.raises(DeliveryTimeout, match="The job has not started"):
        raise run.resume(event).error


def test_monitor_slow_job_without_admin_key_log_says_how_to_see_workers(
    connect: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(monitor, "SLOW_AFTER", 0.0)
    connect(without=("admin_api_key", "runqy_redis_conn_id"))
    run = started(run_of({}, "idle", delivery_timeout=LIMIT))
    run.fire()

    output = capsys.readouterr().out
    assert "Check that a runqy worker serves the queue 'idle.default'" in output
    assert "enter an admin key" in output


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("closed", "cannot be reached from this machine"),
        ("page", "is not the receiver"),
        ("secret", "another callback secret"),
    ],
)
def test_monitor_wrong_callback_is_logged_while_job_runs(
    kind: str,
    message: str,
    gate: Gate,
    connect: Callable[..., Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    with web_page() as page:
        extra = {
            "closed": {"callback_url": f"http://127.0.0.1:{free_port()}"},
            "page": {"callback_url": page},
            "secret": {"callback_secret": "x" * 32},
        }[kind]
        connect(**extra)
        # This task code delivers nothing: the other retries for minutes.
        run = started(run_of(gate.closed, "silent", delivery_timeout=LIMIT))
        run.fire()

    assert message in capsys.readouterr().out


def test_monitor_vanished_job_with_wrong_callback_names_it(
    connect: Callable[..., Any],
) -> None:
    connect(callback_url=f"http://127.0.0.1:{free_port()}")
    run = started(run_of({}, "silent"))

    with pytest.raises(JobVanished, match="cannot be reached from this machine"):
        raise run.resume(run.fire()).error


def test_monitor_vanished_job_message_names_decorator_and_callback(
    stack: Stack,
) -> None:
    run = started(run_of({}, "silent"))

    with pytest.raises(JobVanished, match="@delivers of runqy_delivery") as caught:
        raise run.resume(run.fire()).error
    url = stack.connections["runqy_default"]["extra"]["callback_url"]
    assert f"curl {url}/health" in str(caught.value)


def test_monitor_pending_job_time_counts_from_its_enqueue(
    connect: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    connect(without=("admin_api_key", "runqy_redis_conn_id"))
    run = started(run_of({}, "idle", delivery_timeout=LIMIT))
    trigger = run.trigger
    trigger.job = dataclasses.replace(trigger.job, enqueued_at=time.time() - 230)
    run.fire(trigger)

    assert "has been pending for 23" in capsys.readouterr().out
