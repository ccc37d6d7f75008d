# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Wait for one delivery that may arrive at any of several sources."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runqy_provider.errors import JobFailed, JobVanished, RunqyError
from runqy_provider.waiters.backoff import backoff_delays
from runqy_provider.waiters.liveness import LivenessMonitor
from runqy_provider.waiters.registry import shared_waiter
from runqy_provider.waiters.source import StatusUpdate
from runqy_provider.waiters.wait import Wait

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from runqy_provider.waiters.registry import WaitTarget
    from runqy_provider.waiters.source import Arrival
    from runqy_provider.waiters.waiter import Waiter

log = logging.getLogger(__name__)

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
            arrival = await _poll_in_order(targets)
        if arrival is not None or error is None:
            return arrival
        failed = poll_status(targets).last_error
        is_of_monitor = isinstance(error, (JobVanished, JobFailed)) and monitor
        if not (is_of_monitor and failed) or time.time() >= deadline:
            raise error
        # The delivery may be in a source that cannot be polled just now.
        message = f"{error} But not every source could be polled: {failed}"
        liveness.on_update(StatusUpdate(message))
        # Made only now: there may be thousands of waits, and hardly any needs it.
        delays = delays or backoff_delays(FIRST_DELAY, LONGEST_DELAY)
        await asyncio.sleep(min(next(delays), max(0.0, deadline - time.time())))


async def poll_once(targets: Sequence[WaitTarget]) -> Arrival | None:
    """Poll each source once; return an arrival, or None where there is none yet.

    Raises:
        RunqyError: A required source says that no delivery will arrive.
    """
    arrival, error = await _race(targets, None, 0.0, LivenessMonitor())
    if arrival is None and (error is not None or any(at.relays for at in targets)):
        arrival = await _poll_in_order(targets)
    if arrival is None and error is not None:
        raise error
    return arrival


def poll_status(targets: Sequence[WaitTarget]) -> PollStatus:
    """Return when these sources were last polled, and what failed."""
    waiters = {at: shared_waiter(at.waiter_key, at.waiter_factory) for at in targets}
    polls = [waiter.last_poll for waiter in waiters.values() if waiter.last_poll]
    return PollStatus(
        last_poll=max(polls, default=None),
        last_error=_errors(waiters.values()),
        unreachable=_errors(waiters[at] for at in targets if at.is_required),
    )


def _errors(waiters: Iterable[Waiter]) -> str:
    return " ".join(waiter.last_error for waiter in waiters if waiter.last_error)


async def _race(
    targets: Sequence[WaitTarget],
    monitor: WaitTarget | None,
    deadline: float,
    liveness: LivenessMonitor,
) -> tuple[Arrival | None, RunqyError | None]:
    """Wait at all sources; return the first arrival, or the error that ended it."""
    race = _Race(targets, monitor, deadline, liveness)
    try:
        return await race.end, None
    except RunqyError as error:
        return None, error
    finally:
        race.close()


class _Race:
    """One wait at each of several sources: no tasks, as there may be thousands.

    The first arrival ends it, and the first error; but an error of a source that is not
    required does not, unless it is a fault in the program. The deadline ends it where
    all waits have ended.
    """

    __slots__ = ("_open", "_waits", "end")

    def __init__(
        self,
        targets: Sequence[WaitTarget],
        monitor: WaitTarget | None,
        deadline: float,
        liveness: LivenessMonitor,
    ) -> None:
        all_targets = (*targets, *([monitor] if monitor else ()))
        self.end: asyncio.Future[Arrival | None]
        self.end = asyncio.get_running_loop().create_future()
        self._open = len(all_targets)
        self._waits: list[tuple[Waiter, Wait, bool]] = []
        for target in all_targets:
            waiter = shared_waiter(target.waiter_key, target.waiter_factory)
            wait = Wait(target.key, deadline, liveness, self._on_end)
            self._waits.append((waiter, wait, target.is_required))
            waiter.add(wait)

    def close(self) -> None:
        for waiter, wait, _ in self._waits:
            waiter.remove(wait)
        self._waits.clear()  # or they and the race would keep each other in memory

    def _on_end(
        self, wait: Wait, arrival: Arrival | None, error: BaseException | None
    ) -> None:
        self._open -= 1
        if self.end.done():
            return
        if arrival is not None:
            self.end.set_result(arrival)
        elif error is not None and (
            self._is_required(wait) or not isinstance(error, RunqyError)
        ):
            self.end.set_exception(error)
        else:
            if error is not None:
                log.warning("The wait continues without one of its sources: %s", error)
            if not self._open:
                self.end.set_result(None)

    def _is_required(self, ended: Wait) -> bool:
        return any(each is ended and required for _, each, required in self._waits)


async def _poll_in_order(targets: Sequence[WaitTarget]) -> Arrival | None:
    """Poll once, relays first: what one moves meanwhile is found where it goes."""
    for relays in (True, False):
        polls = [_poll(target) for target in targets if target.relays is relays]
        for arrival in await asyncio.gather(*polls):
            if arrival is not None:
                return arrival
    return None


async def _poll(target: WaitTarget) -> Arrival | None:
    try:
        waiter = shared_waiter(target.waiter_key, target.waiter_factory)
        return await waiter.wait(target.key, deadline=0.0)
    except RunqyError:
        return None  # the wait before this poll raised the same error
