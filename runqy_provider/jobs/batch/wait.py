# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Wait for the deliveries of a batch, in a triggerer or in a worker's slot."""

from __future__ import annotations

import contextlib
import itertools
import time
from typing import TYPE_CHECKING, Any

from runqy_delivery.wire import FAILED
from runqy_provider.errors import RunqyError, SinkUnavailable
from runqy_provider.jobs.monitor import monitor_target
from runqy_provider.jobs.waiting import update_logger
from runqy_provider.models import ARRIVED, DEADLINE, SILENT
from runqy_provider.sinks.registry import sink_from_uri
from runqy_provider.waiters.many import BatchLiveness, wait_many
from runqy_provider.waiters.race import NumberedWait, poll_status
from runqy_provider.waiters.wait import LivenessMonitor
from runqy_provider.waiters.waiter import run_wait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from runqy_provider.jobs.batch.progress import BatchProgress
    from runqy_provider.settings import Settings
    from runqy_provider.waiters.many import EndedWait

#: How many deliveries are looked for at a time.
LOOKED_FOR_AT_ONCE = 10_000

#: Seconds between two reports of progress in the task's log.
REPORT_INTERVAL = 30.0


async def wait_for_batch(
    settings: Settings,
    batch: BatchProgress,
    *,
    until: int,
    most_failed: int,
    deadline: float,
    heartbeat_timeout: float | None = None,
    monitor: bool = True,
    log: Any = None,
) -> str:
    """Wait until most of the jobs in flight have ended; record how.

    Args:
        settings: The runqy connection and the options.
        batch: The batch; what ends is recorded in it.
        until: The wait ends when this number of jobs is in flight.
        most_failed: It also ends when more jobs than this have failed.
        deadline: When to give up, in seconds since 1970.
        heartbeat_timeout: Seconds without a delivery or a sign of life from any job
            after which to give up; None: never.
        monitor: Whether to observe the jobs themselves as well.
        log: Logger of the waiting task, for progress; None: nothing is logged.

    Returns:
        ARRIVED, DEADLINE or SILENT.

    Raises:
        RunqyError: The sink cannot be used, so nothing is known about the jobs.
    """
    is_watched = monitor and batch.chooses_id and settings.config.watch_seconds > 0
    liveness = BatchLiveness(
        heartbeat_timeout, update_logger(log), is_watched=is_watched
    )
    report = _Report(batch, log)

    def is_over() -> bool:
        return len(batch.outstanding) <= until or batch.failures > most_failed

    def on_end(ended: EndedWait) -> bool:
        liveness.on_delivery()
        batch.on_ended(ended.index, _failure(ended))
        report.on_change()
        return not is_over()

    while not is_over():
        await wait_many(
            targets_of_batch(settings, batch, list(batch.outstanding), monitor=monitor),
            on_end,
            deadline=deadline,
            liveness=liveness,
        )
        if is_over() or time.time() >= deadline:
            break
        if liveness.is_silent:
            return SILENT
        # A sign of life came at the moment when the wait ended.
    return ARRIVED if is_over() else DEADLINE


def find_results(settings: Settings, batch: BatchProgress) -> None:
    """Look once for results of jobs in flight, and of those that count as failed.

    A job that gave no sign of life, or whose delivery did not arrive in time, may have
    delivered since. For a process without an event loop: a worker.

    Raises:
        RunqyError: The sink cannot be used, so nothing is known about the jobs.
    """

    def on_end(ended: EndedWait) -> bool:
        failure = _failure(ended)
        if ended.index in batch.outstanding:
            batch.on_ended(ended.index, failure)
        elif failure is None:
            batch.on_found(ended.index)
        return True

    look(settings, batch, [*batch.outstanding, *batch.failed], on_end)


def find_refusal(settings: Settings, batch: BatchProgress) -> str:
    """Say why a delivery of one of the jobs in flight was refused.

    For a process without an event loop: a worker.

    Returns:
        An empty text if none was refused, or if that cannot be read at the moment.
    """
    liveness = LivenessMonitor()
    some = itertools.islice(batch.outstanding, LOOKED_FOR_AT_ONCE)
    with contextlib.suppress(RunqyError):
        waits = list(targets_of_batch(settings, batch, some))
        run_wait(wait_many(waits, lambda _: True, deadline=0.0, liveness=liveness))
    return liveness.refusal


def look(
    settings: Settings,
    batch: BatchProgress,
    indexes: Sequence[int],
    on_end: Callable[[EndedWait], bool],
) -> None:
    """Look once for the deliveries of some jobs, in a process without an event loop.

    Args:
        settings: The runqy connection and the options.
        batch: The batch.
        indexes: The numbers of the jobs.
        on_end: See ``wait_many``.

    Raises:
        SinkUnavailable: A source could not be polled.
        RunqyError: The sink cannot be used.
    """

    async def poll(chunk: Sequence[int]) -> str:
        waits = list(targets_of_batch(settings, batch, chunk))
        await wait_many(waits, on_end, deadline=0.0, liveness=LivenessMonitor())
        targets = {each.waiter_factory: each for one in waits for each in one.targets}
        return poll_status(list(targets.values())).last_error

    for start in range(0, len(indexes), LOOKED_FOR_AT_ONCE):
        error = run_wait(poll(indexes[start : start + LOOKED_FOR_AT_ONCE]))
        if error:
            raise SinkUnavailable(
                f"It is not known which jobs of batch {batch.batch_id} have delivered "
                f"to {batch.sink!r}: the sink could not be read: {error}"
            )


def targets_of_batch(
    settings: Settings,
    batch: BatchProgress,
    indexes: Iterable[int],
    *,
    monitor: bool = False,
) -> Iterator[NumberedWait]:
    """Yield where the deliveries of some jobs may arrive.

    Args:
        settings: The runqy connection and the options.
        batch: The batch.
        indexes: The numbers of the jobs.
        monitor: Whether to observe the jobs themselves as well, if that is possible.
    """
    sink = sink_from_uri(batch.sink).bind(settings)
    for index in indexes:
        job = batch.job(index)
        targets = tuple(sink.all_targets(job))
        yield NumberedWait(
            index, targets, monitor_target(settings, job) if monitor else None
        )


def _failure(ended: EndedWait) -> str | None:
    """Return why a job failed; None if it has not failed."""
    if ended.error is not None:
        return str(ended.error)
    if ended.arrival is not None and ended.arrival.status == FAILED:
        return "Its task code reported a failure."
    return None


class _Report:
    """Reports the progress of a batch in a task's log, not too often."""

    def __init__(self, batch: BatchProgress, log: Any) -> None:
        self._batch = batch
        self._log = log
        self._next = time.monotonic() + REPORT_INTERVAL

    def on_change(self) -> None:
        now = time.monotonic()
        if self._log is not None and now >= self._next:
            self._next = now + REPORT_INTERVAL
            self._log.info("Batch %s: %s.", self._batch.batch_id, self._batch)
