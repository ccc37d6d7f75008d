# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Wait for many deliveries at once, in one task."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runqy_delivery import BadDelivery as WireBadDelivery
from runqy_provider.errors import JobFailed, JobVanished, ResultLost
from runqy_provider.waiters.liveness import LivenessMonitor
from runqy_provider.waiters.race import Race
from runqy_provider.waiters.source import StatusUpdate
from runqy_provider.waiters.wait_any import (
    LONGEST_DELAY,
    doubt_about,
    explained,
    poll_in_order,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from runqy_provider.waiters.registry import WaitTarget
    from runqy_provider.waiters.source import Arrival

#: Errors by which one job will not deliver. Any other is one of a source, or of its
#: connection: it says nothing about a job, and ends the wait for all of them.
JOB_ERRORS = (JobFailed, JobVanished, ResultLost, WireBadDelivery)

#: How many waits begin in one step of the event loop.
AT_ONCE = 50


@dataclass(frozen=True, slots=True)
class NumberedWait:
    """One of many deliveries that are waited for.

    Attributes:
        index: The caller's number of it.
        targets: The sources at which it may arrive.
        monitor: The source that observes its job; None where that is not observed.
    """

    index: int
    targets: Sequence[WaitTarget]
    monitor: WaitTarget | None = None


@dataclass(frozen=True)
class EndedWait:
    """How one of many waits ended.

    Attributes:
        index: The caller's number of it.
        arrival: The delivery; None where it will not arrive.
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
        deadline: When to give up, in seconds since 1970. Where it has passed, each
            source is polled once.
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
            if number % AT_ONCE == 0:
                await asyncio.sleep(0)
        many.all_started()
        await many.end
    finally:
        await many.aclose()


class _NumberedRace(Race):
    """The race for one of many deliveries."""

    __slots__ = ("_many", "_wait")

    def __init__(self, many: _Many, wait: NumberedWait) -> None:
        self._many = many
        self._wait = wait
        super().__init__(wait.targets, wait.monitor, many.deadline, many.liveness)

    def _ended(self, arrival: Arrival | None, error: BaseException | None) -> None:
        self._many.on_race_end(self._wait, arrival, error)


class _Many:
    """A race for each delivery, and a task where one ended without an arrival."""

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
        self._races: dict[int, _NumberedRace] = {}
        self._checks: set[asyncio.Task[None]] = set()
        self._is_starting = True

    def start(self, wait: NumberedWait) -> None:
        self._races[wait.index] = _NumberedRace(self, wait)

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
        # Of its own: that of the whole batch does not tell whose delivery was refused.
        look = LivenessMonitor()
        arrival = await poll_in_order(wait.targets, look)
        error = explained(error, look.refusal)
        doubt = doubt_about(error, wait.targets, wait.monitor)
        if arrival is not None or not doubt or time.time() >= self.deadline:
            self._report(
                EndedWait(wait.index, arrival, None if arrival is not None else error)
            )
            return
        self.liveness.on_update(StatusUpdate(doubt))
        await asyncio.sleep(min(LONGEST_DELAY, max(0.0, self.deadline - time.time())))
        self.start(wait)

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
