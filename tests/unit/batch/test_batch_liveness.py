"""When the jobs of a batch count as silent."""

from __future__ import annotations

import math
import time

from runqy_provider.waiters.many import BatchLiveness
from runqy_provider.waiters.source import StatusUpdate

PENDING = StatusUpdate(has_started=False)
RUNNING = StatusUpdate(has_started=True)


def liveness(*, is_watched: bool = True) -> BatchLiveness:
    return BatchLiveness(10.0, lambda _update: None, is_watched=is_watched)


def test_batch_liveness_of_pending_jobs_never_ends() -> None:
    jobs = liveness()
    jobs.on_update(PENDING)

    assert jobs.silent_at == math.inf


def test_batch_liveness_of_a_running_job_ends() -> None:
    jobs = liveness()
    jobs.on_update(RUNNING)

    assert jobs.silent_at <= time.time() + 10


def test_batch_liveness_after_a_delivery_waits_until_another_job_runs() -> None:
    jobs = liveness()
    jobs.on_update(RUNNING)
    jobs.on_delivery()
    jobs.on_update(PENDING)
    assert jobs.silent_at == math.inf

    jobs.on_update(RUNNING)
    assert jobs.silent_at < math.inf


def test_batch_liveness_of_jobs_that_are_not_watched_ends() -> None:
    jobs = liveness(is_watched=False)
    jobs.on_delivery()

    assert jobs.silent_at <= time.time() + 10


def test_batch_liveness_progress_is_a_sign_of_life_once() -> None:
    jobs = liveness(is_watched=False)
    jobs.last_sign = 0.0
    jobs.on_update(StatusUpdate("half", reported_at=5.0))
    first = jobs.last_sign
    jobs.last_sign = 0.0
    jobs.on_update(StatusUpdate("half", reported_at=5.0))

    assert first > 0
    assert jobs.last_sign == 0.0


def test_batch_liveness_reports_one_warning_in_a_while() -> None:
    shown: list[str] = []
    jobs = BatchLiveness(None, lambda each: shown.append(each.message), is_watched=True)
    for number in range(1000):
        jobs.on_update(StatusUpdate(f"job {number} is lost"))

    assert shown == ["job 0 is lost"]
