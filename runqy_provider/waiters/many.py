# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Wait for many deliveries at once: a race for each, and one end for all."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runqy_delivery import BadDelivery as WireBadDelivery
from runqy_provider.errors import JobFailed, JobVanished, ResultLost
from runqy_provider.sanitize import storable
from runqy_provider.waiters.race import Race, look_again
from runqy_provider.waiters.source import StatusUpdate
from runqy_provider.waiters.wait import LivenessMonitor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from runqy_provider.waiters.race import NumberedWait
    from runqy_provider.waiters.source import Arrival

#: Errors by which one job will not deliver. Any other is one of a source, or of its
#: connection: it says nothing about a job, and ends the wait for all of them.
JOB_ERRORS = (JobFailed, JobVanished, ResultLost, WireBadDelivery)

#: How many of many waits begin in one step of the event loop.
STARTED_PER_STEP = 50

#: Seconds between two lines about single jobs of a batch: thousands may have one.
WARNING_INTERVAL = 300.0


@dataclass(frozen=True)
class EndedWait:
    """How one of many waits ended.

    Attributes:
        index: The caller's number of it.
        arrival: The delivery; None if it will not arrive.
        error: Why not.
    """

    index: int
    arrival: Arrival | None
    error: Exception | None = None


async def wait_many(
    waits: Iterable[NumberedWait],
    on_end: Callable[[EndedWait], bool],
    *,
    deadline: float,
    liveness: LivenessMonitor,
) -> None:
    """Wait until all have arrived, or will not arrive, or the caller has enough.

    Args:
        waits: What to wait for.
        on_end: Is called at the end of each wait, but not at the deadline; returns
            whether to go on with the others.
        deadline: When to give up, in seconds since 1970. If it has passed, each source
            is polled once.
        liveness: Receives the status updates of all, and says when they are silent.

    Raises:
        RunqyError: A source cannot be used, so that nothing is known of any job.
    """
    many = _Many(on_end, deadline, liveness)
    try:
        for number, wait in enumerate(waits):
            if many.end.done():
                break
            many.start(wait)
            if number % STARTED_PER_STEP == 0:
                await asyncio.sleep(0)
        many.all_started()
        await many.end
    finally:
        await many.aclose()


class _OneOfMany(Race):
    """The race for one of many deliveries."""

    __slots__ = ("_many", "_wait")

    def __init__(self, many: _Many, wait: NumberedWait) -> None:
        self._many = many
        self._wait = wait
        super().__init__(wait, many.deadline, many.liveness)

    def _ended(self, arrival: Arrival | None, error: BaseException | None) -> None:
        self._many.on_race_end(self._wait, arrival, error)


class _Many:
    """A race for each delivery, and a task if one ended without an arrival."""

    def __init__(
        self,
        on_end: Callable[[EndedWait], bool],
        deadline: float,
        liveness: LivenessMonitor,
    ) -> None:
        self.end: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._on_end = on_end
        self.deadline = deadline
        self.liveness = liveness
        self._races: dict[int, _OneOfMany] = {}
        self._checks: set[asyncio.Task[None]] = set()
        self._is_starting = True

    def start(self, wait: NumberedWait) -> None:
        self._races[wait.index] = _OneOfMany(self, wait)

    def all_started(self) -> None:
        self._is_starting = False
        self._end_if_done()

    async def aclose(self) -> None:
        for race in self._races.values():
            race.close()
        self._races.clear()
        for check in self._checks:
            check.cancel()
        if self._checks:
            await asyncio.wait(self._checks)

    def on_race_end(
        self, wait: NumberedWait, arrival: Arrival | None, error: BaseException | None
    ) -> None:
        self._races.pop(wait.index).close()
        if arrival is not None:
            self._report(EndedWait(wait.index, arrival))
        elif isinstance(error, JOB_ERRORS):
            check = asyncio.create_task(self._check(wait, error))
            self._checks.add(check)
            check.add_done_callback(self._checked)
        elif error is not None and not self.end.done():
            self.end.set_exception(error)
        self._end_if_done()

    async def _check(self, wait: NumberedWait, error: Exception) -> None:
        """Look once more for a delivery that will not arrive, as an error says."""
        own = LivenessMonitor()
        try:
            arrival = await look_again(wait, error, self.deadline, self.liveness, own)
        except JOB_ERRORS as final:
            self._report(EndedWait(wait.index, None, final))
        else:
            if arrival is not None:
                self._report(EndedWait(wait.index, arrival))

    def _checked(self, check: asyncio.Task[None]) -> None:
        self._checks.discard(check)
        if check.cancelled() or self.end.done():
            return
        error = check.exception()
        if error is not None:
            self.end.set_exception(error)
        self._end_if_done()

    def _report(self, ended: EndedWait) -> None:
        if not self.end.done() and not self._on_end(ended):
            self.end.set_result(None)

    def _end_if_done(self) -> None:
        is_open = self._races or self._checks or self._is_starting
        if not is_open and not self.end.done():
            self.end.set_result(None)


class BatchLiveness(LivenessMonitor):
    """Tracks all jobs of a batch together.

    A delivery, and progress that any job reports, is a sign of life. Silence counts
    only while a job runs: others may have to wait for a worker. The log shows a warning
    about jobs or sources only from time to time, likewise one about a refused delivery,
    and no progress of single jobs.

    Args:
        heartbeat_timeout: Seconds without a sign of life after which the batch counts
            as silent; None: never.
        on_change: Is called with each update that belongs in the log.
        is_watched: Whether the jobs themselves are observed. If they are not, they
            count as running.
    """

    __slots__ = ("_is_watched", "_next_refusal", "_next_warning", "_warn")

    def __init__(
        self,
        heartbeat_timeout: float | None,
        on_change: Callable[[StatusUpdate], None],
        *,
        is_watched: bool,
    ) -> None:
        super().__init__(heartbeat_timeout, is_watched=is_watched)
        self._is_watched = is_watched
        self._warn = on_change
        self._next_warning = self._next_refusal = 0.0

    def on_delivery(self) -> None:
        """Record that a job has delivered."""
        self.last_sign = time.time()
        self._has_started = not self._is_watched

    def on_update(self, update: StatusUpdate) -> None:
        """Record an update of one job, or of a source."""
        now = time.monotonic()
        if update.refusal:
            self.refusal = storable(update.refusal)
            # At once, even if another warning came just before.
            if now >= self._next_refusal:
                self._next_refusal = now + WARNING_INTERVAL
                self._warn(StatusUpdate(self.refusal))
        at = update.reported_at
        if at is not None:
            if self._reported_at is None or at > self._reported_at:
                self._reported_at = at
                self.last_sign = time.time()
            return
        if update.has_started and not self._has_started:
            self._has_started = True
            self.last_sign = time.time()
        if update.message and now >= self._next_warning:
            self._next_warning = now + WARNING_INTERVAL
            self._warn(update)
