# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Wait for a delivery that may arrive at any of several sources.

A wait is a race between its sources. If it ends with an error, they are polled once
more: the delivery may have arrived just now.
"""

from __future__ import annotations

import abc
import asyncio
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runqy_provider.errors import JobFailed, JobVanished, RunqyError
from runqy_provider.waiters.source import StatusUpdate
from runqy_provider.waiters.wait import LivenessMonitor, Wait
from runqy_provider.waiters.waiter import (
    backoff_delays,
    run_wait,
    shared_waiter,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from runqy_provider.waiters.source import Arrival
    from runqy_provider.waiters.waiter import Waiter, WaitTarget

log = logging.getLogger(__name__)

#: Seconds until a job that has ended is judged again, while a source that may hold its
#: delivery cannot be polled: first and longest.
FIRST_DELAY, LONGEST_DELAY = 1.0, 10.0


@dataclass(frozen=True, slots=True)
class NumberedWait:
    """One of many deliveries that are waited for.

    Attributes:
        index: The caller's number of it.
        targets: The sources at which it may arrive.
        monitor: The source that observes its job; None if that is not observed.
    """

    index: int
    targets: Sequence[WaitTarget]
    monitor: WaitTarget | None = None


@dataclass(frozen=True)
class PollStatus:
    """When some sources were last polled, and what failed.

    Attributes:
        last_poll: In seconds since 1970; None if no poll has succeeded.
        last_error: Why the last polls failed; empty if none did.
        unreadable_because: The same for required sources only: while one of them cannot
            be polled, it is not known whether the delivery has arrived.
    """

    last_poll: float | None
    last_error: str
    unreadable_because: str


def poll_status(targets: Sequence[WaitTarget]) -> PollStatus:
    """Return when these sources were last polled, and what failed."""
    waiters = {at: shared_waiter(at.waiter_factory) for at in targets}
    polls = [waiter.last_poll for waiter in waiters.values() if waiter.last_poll]
    return PollStatus(
        last_poll=max(polls, default=None),
        last_error=_errors(waiters.values()),
        unreadable_because=_errors(waiters[at] for at in targets if at.is_required),
    )


async def wait_any(
    targets: Sequence[WaitTarget],
    *,
    deadline: float,
    liveness: LivenessMonitor | None = None,
    monitor: WaitTarget | None = None,
) -> Arrival | None:
    """Return the first arrival; None at the deadline, or if the job is silent.

    Args:
        targets: The sources; their waiters are shared with all other waits.
        deadline: When to give up, in seconds since 1970.
        liveness: Receives status updates, and says when the job has been silent for
            too long.
        monitor: The source that observes the job itself.

    Raises:
        RunqyError: A required source says that no delivery will arrive, or the monitor
            says that the job has ended, and none of the sources has its delivery.
    """
    liveness = liveness or LivenessMonitor()
    wait = NumberedWait(0, targets, monitor)
    arrival, error = await _race(wait, deadline, liveness)
    if arrival is None:
        arrival = await look_again(wait, error, deadline, liveness, liveness)
    return arrival


async def poll_once(
    targets: Sequence[WaitTarget], liveness: LivenessMonitor
) -> Arrival | None:
    """Poll each source once; return an arrival, or None if there is none yet.

    Args:
        targets: The sources.
        liveness: Receives status updates.

    Raises:
        RunqyError: A required source says that no delivery will arrive.
    """
    arrival, error = await _race(NumberedWait(0, targets), 0.0, liveness)
    if arrival is None and (error or any(at.is_relayed for at in targets)):
        arrival = await _poll_in_order(targets, liveness)
    if arrival is None and error is not None:
        raise error
    return arrival


def poll_now(targets: Sequence[WaitTarget]) -> Arrival | None:
    """Poll each source once as ``poll_once`` does, from code that is not async."""
    # The calling thread may have an event loop, in which no other may run.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(run_wait, poll_once(targets, LivenessMonitor())).result()


async def _race(
    wait: NumberedWait, deadline: float, liveness: LivenessMonitor
) -> tuple[Arrival | None, RunqyError | None]:
    """Wait at all sources; return the first arrival, or the error that ended it."""
    race = _SingleRace(wait, deadline, liveness)
    try:
        return await race.end, None
    except RunqyError as error:
        return None, error
    finally:
        race.close()


async def look_again(
    wait: NumberedWait,
    error: Exception | None,
    deadline: float,
    liveness: LivenessMonitor,
    own_liveness: LivenessMonitor,
) -> Arrival | None:
    """Look again for a delivery that did not arrive; wait on while that is in doubt.

    Args:
        wait: The wait, which has ended.
        error: The error that ended it; None: the deadline, or silence.
        deadline: When to give up, in seconds since 1970.
        liveness: Receives status updates, and says when the job is silent.
        own_liveness: The same, or one for this wait if others share ``liveness``: a
            refusal must be one of this delivery.

    Raises:
        Exception: The error; no source has the delivery.
    """
    delays: Iterator[float] | None = None
    while True:
        # It may have arrived just now, without a hint.
        arrival = await _poll_in_order(wait.targets, own_liveness)
        if arrival is not None or error is None:
            return arrival
        doubt = _doubt_about(error, wait)
        if not doubt or time.time() >= deadline:
            raise _explained(error, own_liveness.refusal)
        liveness.on_update(StatusUpdate(doubt))
        # Made only now: there may be thousands of waits, and hardly any needs it.
        delays = delays or backoff_delays(FIRST_DELAY, LONGEST_DELAY)
        await asyncio.sleep(min(next(delays), max(0.0, deadline - time.time())))
        arrival, error = await _race(wait, deadline, liveness)
        if arrival is not None:
            return arrival


def _doubt_about(error: Exception, wait: NumberedWait) -> str:
    """Say why an error may not be the end of a wait; empty if it is.

    If the monitor says that the job has ended, its delivery may be in a source that
    cannot be polled at the moment.
    """
    is_of_monitor = isinstance(error, (JobVanished, JobFailed)) and wait.monitor
    failed = poll_status(wait.targets).last_error if is_of_monitor else ""
    return f"{error} But not every source could be polled: {failed}" if failed else ""


def _explained(error: Exception, refusal: str) -> Exception:
    """Return the error of a job that delivered nothing, with the reason for that.

    Args:
        error: The error that ended a wait.
        refusal: Why a delivery of the job was refused; empty if none was.
    """
    if refusal and isinstance(error, JobVanished):
        return error.because(refusal)
    if refusal and isinstance(error, JobFailed):
        return JobFailed(f"{error} {refusal}")
    return error


async def _poll_in_order(
    targets: Sequence[WaitTarget], liveness: LivenessMonitor
) -> Arrival | None:
    """Poll once, relayed sources first: what is moved meanwhile is found afterwards."""
    for is_relayed in (True, False):
        chosen = [each for each in targets if each.is_relayed is is_relayed]
        for arrival in await asyncio.gather(*[_poll(at, liveness) for at in chosen]):
            if arrival is not None:
                return arrival
    return None


async def _poll(target: WaitTarget, liveness: LivenessMonitor) -> Arrival | None:
    try:
        waiter = shared_waiter(target.waiter_factory)
        return await waiter.wait(target.key, deadline=0.0, liveness=liveness)
    except RunqyError:
        return None  # the wait before this poll raised the same error


def _errors(waiters: Iterable[Waiter]) -> str:
    return " ".join(waiter.last_error for waiter in waiters if waiter.last_error)


class Race(abc.ABC):
    """Waits for one delivery at several sources: no tasks, as there may be thousands.

    The first result or error ends the race. A RunqyError of an optional source is only
    logged. At the deadline the race ends when its last wait does.

    Args:
        wait: The sources; their waiters are shared with all other waits.
        deadline: When to give up, in seconds since 1970.
        liveness: Receives status updates, and says when the job is silent.
    """

    __slots__ = ("_is_over", "_open", "_waits")

    def __init__(
        self, wait: NumberedWait, deadline: float, liveness: LivenessMonitor
    ) -> None:
        targets = (*wait.targets, *([wait.monitor] if wait.monitor else ()))
        self._is_over = False
        self._open = len(targets)
        on_end = self._on_wait_end
        self._waits = [
            Wait(target.key, deadline, liveness, on_end, target.is_required)
            for target in targets
        ]
        for target, each in zip(targets, self._waits, strict=True):
            shared_waiter(target.waiter_factory).add(each)

    @abc.abstractmethod
    def _ended(self, arrival: Arrival | None, error: BaseException | None) -> None:
        """Take the end, once: the arrival (None at the deadline) and the error."""

    def close(self) -> None:
        """Forget the waits, whether they have ended or not."""
        self._is_over = True
        for wait in self._waits:
            wait.forget()
        self._waits.clear()  # or they and the race would keep each other in memory

    def _on_wait_end(
        self, wait: Wait, arrival: Arrival | None, error: BaseException | None
    ) -> None:
        self._open -= 1
        if self._is_over:
            return
        if arrival is None and error is not None:
            ends = wait.is_required or not isinstance(error, RunqyError)
            if not ends:
                log.warning("The wait continues without one of its sources: %s", error)
                error = None
        else:
            ends = arrival is not None
        if ends or not self._open:
            self._is_over = True
            self._ended(arrival, error)


class _SingleRace(Race):
    """A race whose end is awaited."""

    __slots__ = ("end",)

    def __init__(
        self, wait: NumberedWait, deadline: float, liveness: LivenessMonitor
    ) -> None:
        self.end: asyncio.Future[Arrival | None]
        self.end = asyncio.get_running_loop().create_future()
        super().__init__(wait, deadline, liveness)

    def _ended(self, arrival: Arrival | None, error: BaseException | None) -> None:
        if self.end.done():
            return  # it was cancelled
        if error is None:
            self.end.set_result(arrival)
        else:
            self.end.set_exception(error)
