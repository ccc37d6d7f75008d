# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Observe the jobs themselves: those that end, or are gone, without a delivery.

Task code that dies never delivers, and runqy then forgets the job. So the jobs of all
waits are also polled: rarely, and all at once.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from runqy_provider.airflow_compat import in_thread
from runqy_provider.client import models as job_states
from runqy_provider.client.job_status import (
    BATCH,
    UNKNOWN,
    WAITING,
    JobStatus,
    LastSeen,
    QueuePosition,
    RedisJobStatusReader,
    is_gone,
    job_status_reader,
)
from runqy_provider.errors import (
    JobFailed,
    JobVanished,
    NoAccess,
    Rejected,
    SinkUnavailable,
)
from runqy_provider.sinks.registry import sink_from_uri
from runqy_provider.waiters.source import PollResult, StatusUpdate
from runqy_provider.waiters.waiter import Waiter, WaitTarget

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import AsyncIterator, Collection, Mapping

    from runqy_provider.client.job_status import JobStatusReader, Seen
    from runqy_provider.connections import RunqyConnection
    from runqy_provider.models import JobRef
    from runqy_provider.redis_connection import RedisConnection
    from runqy_provider.settings import Settings


#: Seconds after the start of a wait at which its job is polled in addition to the
#: regular polls: a job that ends at once, or that no worker takes, is reported soon.
EARLY_LOOKS = (4.0, 12.0, 30.0)

#: Our own state of an active job whose worker has let its lease expire.
LOST = "lost"

#: Seconds after which an ended job that is not polled any more is forgotten.
FORGET_AFTER = 600.0

#: What to do about a job that delivered nothing.
NO_DELIVERY = (
    "Check that its task code delivers: with @delivers of runqy_delivery, or with a "
    "request of its own. Then see the log of the runqy worker: the delivery may have "
    "been refused, or the handler failed at every retry. (Or the job was deleted.)"
)

#: What to do if runqy's Redis has lost a job.
FIND_LOSS = (
    "Find out why that Redis lost its data (FLUSHALL, no persistence, a limit of its "
    "memory), and run the task again: that enqueues a new job."
)

#: The longest text of an error that is quoted, in characters.
MAX_ERROR_LENGTH = 2000

#: Seconds for which a job may be pending before its task's log mentions it.
SLOW_AFTER = 30.0

#: The next report comes when the job has been pending for this many times as long.
GROWTH = 2.0

#: For how many jobs one poll asks: finding a position takes time in Redis.
MOST_REPORTED = 100

#: Seconds between two checks of the callback URL: usually, and when a job has just
#: ended without a delivery.
CHECK_INTERVAL, SHORT_CHECK_INTERVAL = 60.0, 15.0


def monitor_target(settings: Settings, job: JobRef) -> WaitTarget | None:
    """Return the source that observes a job.

    Returns:
        None if the job is not known, or if jobs are not observed.
    """
    connection, is_on = settings.connection, settings.config.watch_seconds > 0
    if job.runqy_queue is None or job.job_id is None or not is_on:
        return None
    has_webhook = sink_from_uri(job.sink).delivers_by_webhook
    factory = _WaiterFactory(connection, settings.runqy_redis, has_webhook, settings)
    observed = ObservedJob(job.runqy_queue, job.job_id, job.enqueued_at)
    return WaitTarget(factory, observed.key)


class ObservedJob(NamedTuple):
    """A job that is observed; its key is that of the waits for it.

    Attributes:
        runqy_queue: Full name of its queue.
        job_id: runqy's id.
        enqueued_at: When it was enqueued, in seconds since 1970; 0: not known.
    """

    runqy_queue: str
    job_id: str
    enqueued_at: float

    @property
    def key(self) -> str:
        """All three, as text: queues and ids contain no blanks."""
        return f"{self.runqy_queue} {self.job_id} {self.enqueued_at:.0f}"

    @classmethod
    def from_key(cls, key: str) -> ObservedJob:
        runqy_queue, job_id, enqueued_at = key.split(" ")
        return cls(runqy_queue, job_id, float(enqueued_at))

    @property
    def job(self) -> tuple[str, str]:
        """Its queue and its id, as a reader of job states knows it."""
        return self.runqy_queue, self.job_id


@dataclass(frozen=True, slots=True)
class _WaiterFactory:
    connection: RunqyConnection
    redis: RedisConnection | None
    has_webhook: bool
    settings: Settings = field(compare=False)

    def __call__(self) -> Waiter:
        config = self.settings.config
        monitor = JobMonitor(
            job_status_reader(self.connection, self.redis),
            config.vanished_grace_seconds,
            CallbackMonitor(self.settings) if self.has_webhook else None,
            served_for=config.watch_seconds / 2,
        )
        early = [age for age in EARLY_LOOKS if age <= config.watch_seconds]
        return Waiter(monitor, config.watch_seconds, batch=BATCH, early=early)


class JobMonitor:
    """Observes jobs; each wait has the key of an ``ObservedJob``.

    Args:
        reader: Reads the status of jobs.
        grace: Seconds between the end of a job and the error that it delivered
            nothing: a delivery may be on its way.
        callback: Says why deliveries cannot arrive; None if they are not webhooks.
        served_for: Seconds for which it is remembered which queues are served.
    """

    def __init__(
        self,
        reader: JobStatusReader,
        grace: float,
        callback: CallbackMonitor | None = None,
        served_for: float = 0.0,
    ) -> None:
        self._reader = reader
        self._grace = grace
        self._callback = callback
        self._callback_problem = ""
        self._pending = PendingJobs()
        self._last_seen = LastSeen()
        self._served_for = served_for
        self._served: Counter[str] | None = None
        self._read_again = 0.0
        self._ended: dict[str, float] = {}
        self._to_judge: asyncio.Queue[tuple[float, str]] = asyncio.Queue()

    async def poll(self, keys: Collection[str]) -> Mapping[str, PollResult]:
        """Poll all jobs.

        Raises:
            SinkUnavailable: runqy does not answer, or refuses to. That ends no wait:
                the delivery may still arrive.
        """
        jobs = {key: ObservedJob.from_key(key) for key in keys}
        try:
            found = await self._reader.poll([job.job for job in jobs.values()])
            served = await self._served_queues()
            active = [job for job, status in found.items() if _is_active(status)]
            lost = await self._reader.expired_leases(active) if active else set()
            await self._report_pending(jobs, found, served)
        except (Rejected, NoAccess) as error:
            raise SinkUnavailable(str(error)) from error
        self._last_seen.update(
            {key: found[job.job] for key, job in jobs.items() if job.job in found}
        )
        for job_id in lost:
            found[job_id] = JobStatus(LOST)
        await self._check_callback(found)
        return {
            key: self._evaluate(key, job, found[job.job], served)
            for key, job in jobs.items()
            if job.job in found
        }

    async def _served_queues(self) -> Counter[str] | None:
        """Read which queues the live workers serve, but not for each batch of jobs."""
        if time.monotonic() >= self._read_again:
            self._served = await self._reader.served_queues()
            self._read_again = time.monotonic() + self._served_for
        return self._served

    async def hints(self) -> AsyncIterator[str | None]:
        """Yield the jobs whose grace has ended."""
        while True:
            when, key = await self._to_judge.get()
            await asyncio.sleep(max(0.0, when - time.time()))
            yield key

    async def aclose(self) -> None:
        """Close the connections, and forget what was observed."""
        self._ended.clear()
        self._last_seen.clear()
        self._to_judge = asyncio.Queue()
        await self._reader.aclose()

    def _evaluate(
        self,
        key: str,
        job: ObservedJob,
        found: JobStatus | None,
        served: Counter[str] | None,
    ) -> PollResult:
        if found is not None and found.state == job_states.ARCHIVED:
            return JobFailed(
                f"The job failed: runqy gave job {job.job_id} up after {found.retried} "
                f"retries, and nothing was delivered. {self._reason(found)}"
            )
        if found is None or is_gone(found) or found.state == job_states.COMPLETED:
            return self._ended_without_delivery(key, job, found)
        self._ended.pop(key, None)
        is_served = served is None or job.runqy_queue in served
        if found.state in WAITING:
            message = self._waiting_message(key, job, found, is_served=is_served)
            return StatusUpdate(message, has_started=False)
        if found.state == LOST or not is_served:
            return self._lost(job, is_served=is_served)
        return StatusUpdate(self._callback_problem, has_started=True)

    def _waiting_message(
        self, key: str, job: ObservedJob, found: JobStatus, *, is_served: bool
    ) -> str:
        if found.state == job_states.RETRY:
            return (
                f"runqy will run job {job.job_id} again (retry {found.retried}): its "
                "handler raised, its delivery was not accepted, or its worker was "
                f"lost. {self._reason(found)} {self._callback_problem}".rstrip()
            )
        if is_served:
            return self._pending.message(key)
        return (
            f"Job {job.job_id} is {found.state}, and no live worker serves the queue "
            f"{job.runqy_queue!r}: start one, or wait for one. A worker does not "
            "serve a queue whose task code does not start; its log says why. (Seen in "
            f"{self._reader.location}.)"
        )

    async def _report_pending(
        self,
        jobs: Mapping[str, ObservedJob],
        found: Seen,
        served: Counter[str] | None,
    ) -> None:
        pending = {
            key: _pending_since(found[job.job], job.enqueued_at)
            for key, job in jobs.items()
            if _is_pending(found.get(job.job))
        }
        due = self._pending.update(jobs, pending)
        if not due:
            return
        ahead = await self._reader.jobs_ahead([jobs[key].job for key in due])
        for key in due:
            job = jobs[key]
            position = (
                None
                if served is None
                else QueuePosition(ahead.get(job.job), served[job.runqy_queue])
            )
            self._pending.report(key, job.job_id, job.runqy_queue, position)

    async def _check_callback(self, found: Seen) -> None:
        """Check the callback URL, if a job runs or has run."""
        states = found.values()
        has_run = any(not _is_pending(each) and not _is_lost(each) for each in states)
        if self._callback is not None and has_run:
            has_ended = any(_has_ended(status) for status in states)
            self._callback_problem = await self._callback.problem(has_ended=has_ended)

    def _lost(self, job: ObservedJob, *, is_served: bool) -> StatusUpdate:
        if is_served:
            reason = "its lease has expired"
            then = "another worker that serves the queue will take it soon"
        else:
            reason = f"no live worker serves the queue {job.runqy_queue!r}"
            then = "another worker gets it when its lease has expired: start one"
        return StatusUpdate(
            f"Job {job.job_id} is {job_states.ACTIVE}, but {reason}: its worker was "
            f"lost. runqy runs the job again; {then}. (Seen in "
            f"{self._reader.location}.)",
            has_started=True,
        )

    def _ended_without_delivery(
        self, key: str, job: ObservedJob, found: JobStatus | None
    ) -> PollResult:
        now = time.time()
        since = self._ended.get(key)
        if since is None:
            self._forget_old(now)
            since = self._ended[key] = now
            self._to_judge.put_nowait((now + self._grace, key))
        if now - since < self._grace:
            # Nothing to report yet: usually the delivery is about to be read.
            return StatusUpdate(self._callback_problem)
        # The job stays ended: if the wait continues because a source cannot be polled,
        # the next poll ends it, without another grace.
        what = "has forgotten the job" if is_gone(found) else "says it is completed"
        name = f"Job {job.job_id} in queue {job.runqy_queue!r}"
        last = self._last_seen.explain(key, found) if is_gone(found) else ""
        if _is_lost(found):
            message = f"{name} is gone, and nothing was delivered. {last}"
            advice = FIND_LOSS
        else:
            message = f"{name} ended, or died, without delivering. {last}".rstrip()
            advice = self._callback_problem or NO_DELIVERY
            if not self._callback_problem and self._callback is not None:
                advice = f"{advice} {self._callback.ask_worker}"
        return JobVanished(
            message,
            advice=advice,
            seen=f"({self._reader.location} {what} since {_utc(since)}, and nothing "
            f"arrived in the {self._grace:g} s after.)",
        )

    def _forget_old(self, now: float) -> None:
        """Forget jobs that are not polled any more: their delivery arrived in time."""
        limit = now - self._grace - FORGET_AFTER
        while self._ended:
            oldest = next(iter(self._ended))
            if self._ended[oldest] > limit:
                return
            del self._ended[oldest]

    def _reason(self, found: JobStatus) -> str:
        if found.error:
            return f"runqy says: {found.error[:MAX_ERROR_LENGTH]}"
        if isinstance(self._reader, RedisJobStatusReader):
            return "The log of the runqy worker says why."
        return (
            "runqy's API does not say why: name runqy's own Redis in the connection, "
            "or see the worker's log."
        )


def _is_pending(found: JobStatus | None) -> bool:
    return found is not None and found.state == job_states.PENDING


def _pending_since(found: JobStatus | None, enqueued_at: float) -> float:
    """Return since when a job is pending; 0 if that is not known."""
    # A job that is run again is pending since its last run.
    return 0.0 if found is None or found.retried else enqueued_at


def _is_lost(found: JobStatus | None) -> bool:
    return found is not None and found.state == UNKNOWN


def _has_ended(found: JobStatus | None) -> bool:
    return found is None or found.state == job_states.COMPLETED


def _is_active(found: JobStatus | None) -> bool:
    return found is not None and found.state == job_states.ACTIVE


def _utc(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))


@dataclass(slots=True)
class Pending:
    """A job that has been pending since ``since``; it is reported at ``due``.

    Times are in seconds since 1970. ``is_exact`` says whether ``since`` is when the job
    was enqueued, and not when it was first seen.
    """

    since: float
    due: float
    seen: float
    is_exact: bool = False
    message: str = ""


class PendingJobs:
    """Remembers since when jobs are pending, and what was last reported of them."""

    def __init__(self) -> None:
        #: In the order in which the jobs were last seen.
        self._jobs: dict[str, Pending] = {}

    def update(
        self, polled: Collection[str], pending: Mapping[str, float]
    ) -> list[str]:
        """Record which of the jobs are pending now.

        Args:
            polled: The jobs that were polled: some of all.
            pending: Those of them that are pending, and since when, in seconds since
                1970; 0 if that is not known.

        Returns:
            The jobs that must be reported now.
        """
        now = time.time()
        known = {job: self._jobs.pop(job, None) for job in polled}
        for job, at in pending.items():
            # A clock of another machine may be ahead of ours.
            since = min(at, now) if at else now
            each = known.get(job) or Pending(since, since + SLOW_AFTER, now, at > 0)
            each.seen = now
            self._jobs[job] = each
        self._forget_old(now)
        due = [job for job in pending if self._jobs[job].due <= now]
        return due[:MOST_REPORTED]

    def _forget_old(self, now: float) -> None:
        """Forget jobs that are not polled any more."""
        while self._jobs:
            oldest = next(iter(self._jobs))
            if now - self._jobs[oldest].seen <= FORGET_AFTER:
                return
            del self._jobs[oldest]

    def report(
        self, job: str, job_id: str, runqy_queue: str, position: QueuePosition | None
    ) -> None:
        """Make the report of a job, which stays until the next one."""
        known, now = self._jobs[job], time.time()
        waited = now - known.since
        known.due = known.since + waited * GROWTH
        least = "" if known.is_exact else "at least "
        since = f"Job {job_id} has been pending for {least}{waited:.0f} s"
        if position is None:
            known.message = (
                f"{since}. Check that a runqy worker serves the queue {runqy_queue!r}. "
                "(To see that here, enter an admin key or runqy's own Redis in the "
                "connection.)"
            )
            return
        ahead = "" if position.ahead is None else f", {position.ahead} jobs before it"
        known.message = (
            f"{since} in the queue {runqy_queue!r}{ahead}. Live workers of the queue: "
            f"{position.workers}."
        )

    def message(self, job: str) -> str:
        """Return the last report of a job; an empty text if there is none yet."""
        known = self._jobs.get(job)
        return "" if known is None else known.message


class CallbackMonitor:
    """Checks the callback URL of one connection, and remembers the answer for a while.

    Args:
        settings: The runqy connection and the options.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._checked_at = -CHECK_INTERVAL
        self._problem = ""

    @property
    def ask_worker(self) -> str:
        """How to find out whether deliveries can leave the worker's machine."""
        url = self._settings.callback_url
        return (
            f"Airflow reaches {url}. To see whether the worker does, run there: "
            f"curl {url}/health"
        )

    async def problem(self, *, has_ended: bool = False) -> str:
        """Return why deliveries cannot arrive; an empty text if they can.

        Args:
            has_ended: Whether a job has just ended without a delivery.
        """
        from runqy_provider.checks import FAILED  # noqa: PLC0415 - same
        from runqy_provider.checks.callback import (  # noqa: PLC0415 - rarely needed
            check_callback,
        )

        interval = SHORT_CHECK_INTERVAL if has_ended else CHECK_INTERVAL
        if time.monotonic() - self._checked_at >= interval:
            found = await in_thread(check_callback, self._settings)
            self._problem = found.message if found.status == FAILED else ""
            self._checked_at = time.monotonic()
        return self._problem
