# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Wait for one delivery that may arrive at any of several sources."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runqy_provider.errors import JobFailed, JobVanished, RunqyError
from runqy_provider.waiters.backoff import backoff_delays
from runqy_provider.waiters.liveness import LivenessMonitor
from runqy_provider.waiters.race import Race
from runqy_provider.waiters.registry import close_waiters, shared_waiter
from runqy_provider.waiters.source import StatusUpdate

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from runqy_provider.waiters.registry import WaitTarget
    from runqy_provider.waiters.source import Arrival
    from runqy_provider.waiters.waiter import Waiter

#: Seconds until a job that has ended is judged again, while a source that may hold its
#: delivery cannot be polled: first and longest.
FIRST_DELAY, LONGEST_DELAY = 1.0, 10.0


@dataclass(frozen=True)
class PollStatus:
    """When some sources were last polled, and what failed.

    Attributes:
        last_poll: In seconds since 1970; None where no poll has succeeded.
        last_error: Why the last polls failed; empty where none did.
        unreachable: The same for required sources only: while one of them cannot be
            polled, it is not known whether the delivery has arrived.
    """

    last_poll: float | None
    last_error: str
    unreachable: str


async def wait_any(
    targets: Sequence[WaitTarget],
    *,
    deadline: float,
    liveness: LivenessMonitor | None = None,
    monitor: WaitTarget | None = None,
) -> Arrival | None:
    """Return the first arrival; None at the deadline, or where the job is silent.

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
    delays: Iterator[float] | None = None
    while True:
        arrival, error = await _race(targets, monitor, deadline, liveness)
        if arrival is None:
            # It may have arrived just now, without a hint.
            arrival = await poll_in_order(targets, liveness)
        if arrival is not None or error is None:
            return arrival
        doubt = doubt_about(error, targets, monitor)
        if not doubt or time.time() >= deadline:
            raise explained(error, liveness.refusal)
        liveness.on_update(StatusUpdate(doubt))
        # Made only now: there may be thousands of waits, and hardly any needs it.
        delays = delays or backoff_delays(FIRST_DELAY, LONGEST_DELAY)
        await asyncio.sleep(min(next(delays), max(0.0, deadline - time.time())))


async def poll_once(
    targets: Sequence[WaitTarget], liveness: LivenessMonitor
) -> Arrival | None:
    """Poll each source once; return an arrival, or None where there is none yet.

    Args:
        targets: The sources.
        liveness: Receives status updates.

    Raises:
        RunqyError: A required source says that no delivery will arrive.
    """
    arrival, error = await _race(targets, None, 0.0, liveness)
    if arrival is None and (error is not None or any(at.relays for at in targets)):
        arrival = await poll_in_order(targets, liveness)
    if arrival is None and error is not None:
        raise error
    return arrival


def poll_now(targets: Sequence[WaitTarget]) -> Arrival | None:
    """Poll each source once as ``poll_once`` does, from code that is not async."""

    async def poll_and_close() -> Arrival | None:
        try:
            return await poll_once(targets, LivenessMonitor())
        finally:
            await close_waiters()

    # The calling thread may have an event loop, in which no other may run.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, poll_and_close()).result()


def doubt_about(
    error: Exception, targets: Sequence[WaitTarget], monitor: WaitTarget | None
) -> str:
    """Say why an error may not be the end of a wait; empty where it is.

    Where the monitor says that the job has ended, its delivery may be in a source that
    cannot be polled just now.
    """
    is_of_monitor = isinstance(error, (JobVanished, JobFailed)) and monitor is not None
    failed = poll_status(targets).last_error if is_of_monitor else ""
    return f"{error} But not every source could be polled: {failed}" if failed else ""


def explained(error: Exception, refusal: str) -> Exception:
    """Return the error of a job that delivered nothing, with the reason for that.

    Args:
        error: The error that ended a wait.
        refusal: Why a delivery of the job was refused; empty where none was.
    """
    if refusal and isinstance(error, JobVanished):
        return error.because(refusal)
    if refusal and isinstance(error, JobFailed):
        return JobFailed(f"{error} {refusal}")
    return error


def poll_status(targets: Sequence[WaitTarget]) -> PollStatus:
    """Return when these sources were last polled, and what failed."""
    waiters = {at: shared_waiter(at.waiter_factory) for at in targets}
    polls = [waiter.last_poll for waiter in waiters.values() if waiter.last_poll]
    return PollStatus(
        last_poll=max(polls, default=None),
        last_error=_errors(waiters.values()),
        unreachable=_errors(waiters[at] for at in targets if at.is_required),
    )


def _errors(waiters: Iterable[Waiter]) -> str:
    return " ".join(waiter.last_error for waiter in waiters if waiter.last_error)


class _FutureRace(Race):
    """A race whose end is awaited."""

    __slots__ = ("end",)

    def __init__(
        self,
        targets: Sequence[WaitTarget],
        monitor: WaitTarget | None,
        deadline: float,
        liveness: LivenessMonitor,
    ) -> None:
        self.end: asyncio.Future[Arrival | None]
        self.end = asyncio.get_running_loop().create_future()
        super().__init__(targets, monitor, deadline, liveness)

    def _ended(self, arrival: Arrival | None, error: BaseException | None) -> None:
        if self.end.done():
            return  # it was cancelled
        if error is None:
            self.end.set_result(arrival)
        else:
            self.end.set_exception(error)


async def _race(
    targets: Sequence[WaitTarget],
    monitor: WaitTarget | None,
    deadline: float,
    liveness: LivenessMonitor,
) -> tuple[Arrival | None, RunqyError | None]:
    """Wait at all sources; return the first arrival, or the error that ended it."""
    race = _FutureRace(targets, monitor, deadline, liveness)
    try:
        return await race.end, None
    except RunqyError as error:
        return None, error
    finally:
        race.close()


async def poll_in_order(
    targets: Sequence[WaitTarget], liveness: LivenessMonitor
) -> Arrival | None:
    """Poll once, relays first: what one moves meanwhile is found where it goes.

    Args:
        targets: The sources.
        liveness: Receives status updates, such as that a delivery was refused.
    """
    for relays in (True, False):
        polls = [_poll(each, liveness) for each in targets if each.relays is relays]
        for arrival in await asyncio.gather(*polls):
            if arrival is not None:
                return arrival
    return None


async def _poll(target: WaitTarget, liveness: LivenessMonitor) -> Arrival | None:
    try:
        waiter = shared_waiter(target.waiter_factory)
        return await waiter.wait(target.key, deadline=0.0, liveness=liveness)
    except RunqyError:
        return None  # the wait before this poll raised the same error
