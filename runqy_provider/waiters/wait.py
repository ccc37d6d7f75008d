# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""A wait: the signs of life of its job, when it is polled, and when it ends."""

from __future__ import annotations

import dataclasses
import heapq
import itertools
import math
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Protocol

from runqy_provider.sanitize import storable
from runqy_provider.waiters.source import StatusUpdate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from runqy_provider.waiters.source import Arrival

#: Seconds between two lines of progress in a task's log.
PROGRESS_INTERVAL = 5.0

#: If the interval grows with the age of a wait: after a minute a job is polled every
#: six seconds, so that the wait is longer than the job by at most this share.
SHARE_OF_AGE = 0.1

#: How many waits are polled early at a time: if thousands begin, each has its turn.
MOST_EARLY = 200

#: Entries of ended waits are dropped once there are this many times more than waits.
STALE_FACTOR = 4


class Reachable(Protocol):
    """A source that may be unreachable for a while."""

    @property
    def reachable_since(self) -> float:
        """Since when it can be polled, in seconds since 1970.

        0 for always, infinite while it cannot be polled.
        """


class LivenessMonitor:
    """Tracks one job; all sources at which its delivery is waited for share it.

    Silence counts only after the job has started, and only while all sources can be
    polled: a source that cannot may hold a sign of life.

    Args:
        heartbeat_timeout: Seconds without a sign of life after which the job counts as
            silent; None: never.
        on_change: Is called with each update that is new, for the task's log.
        is_watched: Whether the job itself is observed, so that its start will be seen.
            If it is not, the job counts as started.
    """

    __slots__ = (
        "_has_started",
        "_heartbeat_timeout",
        "_logged",
        "_logged_progress",
        "_next_progress",
        "_on_change",
        "_reported_at",
        "_sources",
        "job",
        "last_sign",
        "progress",
        "refusal",
    )

    def __init__(
        self,
        heartbeat_timeout: float | None = None,
        on_change: Callable[[StatusUpdate], None] = lambda _update: None,
        *,
        is_watched: bool = False,
    ) -> None:
        self._heartbeat_timeout = heartbeat_timeout
        self._on_change = on_change
        self._logged = self._logged_progress = ""
        self._next_progress = 0.0
        self._has_started = not is_watched
        self._reported_at: float | None = None
        self._sources: tuple[Reachable, ...] = ()
        self.last_sign = time.time()
        #: The last progress that the task code reported.
        self.progress = ""
        #: What was last observed of the job.
        self.job = ""
        #: Why a delivery of the job was refused; empty if none was.
        self.refusal = ""

    @property
    def silent_at(self) -> float:
        """When the job will count as silent, in seconds since 1970."""
        timeout = self._heartbeat_timeout
        if timeout is None or not self._has_started:
            return math.inf
        # Signs of life may be lost while a source cannot be polled.
        since = max((source.reachable_since for source in self._sources), default=0.0)
        return max(self.last_sign, since) + timeout

    @property
    def is_silent(self) -> bool:
        """Whether the job has been silent for too long."""
        return time.time() >= self.silent_at

    def on_update(self, update: StatusUpdate) -> None:
        """Record an update, and pass it on if it is new; progress not too often."""
        self._record_sign(update)
        refusal = storable(update.refusal)
        if refusal and refusal != self.refusal:
            self.refusal = refusal
            self._on_change(StatusUpdate(refusal))
        message = storable(update.message)
        if update.is_progress:
            self.progress = message
        else:
            self.job = message
        logged = self._logged_progress if update.is_progress else self._logged
        if not message or message == logged:
            return
        if update.is_progress:
            now = time.monotonic()
            if now < self._next_progress:
                return
            self._next_progress = now + PROGRESS_INTERVAL
            self._logged_progress = message
        else:
            self._logged = message
        self._on_change(dataclasses.replace(update, message=message))

    def add_source(self, source: Reachable) -> None:
        """Let silence count only while this source, too, can be polled."""
        if self._heartbeat_timeout is not None and source not in self._sources:
            self._sources = (*self._sources, source)

    def _record_sign(self, update: StatusUpdate) -> None:
        """Record a sign of life at the time of our clock: other clocks may be wrong."""
        at, has_started = update.reported_at, update.has_started
        if at is not None and at != self._reported_at:
            self._reported_at, self._has_started = at, True
            self.last_sign = time.time()
        elif has_started is False or (has_started and not self._has_started):
            self._has_started = has_started
            self.last_sign = time.time()


class WaitOwner(Protocol):
    """The waiter that a wait was added to."""

    def remove(self, wait: Wait) -> None:
        """Forget the wait."""


# With slots, and without a future or a task of its own: there may be thousands.
@dataclass(eq=False, slots=True)
class Wait:
    """One registered wait; times are seconds since 1970.

    Attributes:
        key: What the source knows the delivery by.
        deadline: When to give up.
        liveness: Receives status updates, and says when the job is silent.
        on_end: Is called once, when the wait ends: with the wait, the arrival (None at
            the deadline) and the error.
        is_required: See ``WaitTarget``.
        waiter: The waiter that it was added to.
        since: When the wait began.
        polled_at: When its source was last polled for it; 0 for never.
        was_polled: Whether a poll was tried, with or without success.
        queued_for: The time at which it stands in the ``DeadlineQueue``.
        is_over: Whether it has ended, or was given up.
    """

    key: str
    deadline: float
    liveness: LivenessMonitor
    on_end: Callable[[Wait, Arrival | None, BaseException | None], None]
    is_required: bool = True
    waiter: WaitOwner | None = None
    since: float = field(default_factory=time.time)
    polled_at: float = 0.0
    was_polled: bool = False
    queued_for: float | None = None
    is_over: bool = False

    def forget(self) -> None:
        """Give the wait up, whether it has ended or not."""
        if self.waiter is not None:
            self.waiter.remove(self)

    def end(
        self, arrival: Arrival | None = None, error: BaseException | None = None
    ) -> None:
        """End the wait, unless it has ended before."""
        if not self.is_over:
            self.is_over = True
            self.on_end(self, arrival, error)


class PollSchedule:
    """The order in which waits are polled; times are seconds since 1970.

    Every wait gets its turn once in each interval. With many waits the turns are spread
    over the interval, a batch each, so that no poll blocks the event loop. Waits that
    are new, or for which there was a hint, do not wait for their turn. A few new ones
    are polled early, too: with a long interval, what goes wrong at the start of a job
    is seen soon.

    Args:
        interval: Seconds between two polls of a wait.
        max_interval: The same for an old wait; None: the same as for a new one.
        batch: How many keys are polled at once; None: any number.
        early: Ages in seconds, in order, at which a wait is polled beside its turns;
            no more waits at a time than ``MOST_EARLY``.
    """

    def __init__(
        self,
        interval: float,
        max_interval: float | None = None,
        batch: int | None = None,
        early: Sequence[float] = (),
    ) -> None:
        self._interval = interval
        self._max_interval = (
            interval if max_interval is None else max(interval, max_interval)
        )
        self._batch = sys.maxsize if batch is None else batch
        self._early = tuple(early)
        #: When the next early poll of a wait is due, a number, at which age, the wait.
        self._soon: list[tuple[float, int, int, Wait]] = []
        self._order = itertools.count()
        self._waits: deque[Wait] = deque()
        # Dictionaries, as they keep the order and find a key at once.
        self._urgent: dict[str, None] = {}
        self._failed: dict[str, None] = {}
        #: When the next turn is due.
        self.next_turn = 0.0

    @property
    def next_poll(self) -> float:
        """When the next poll is due; 0 for now."""
        if self._urgent:
            return 0.0
        return min(self.next_turn, self._soon[0][0]) if self._soon else self.next_turn

    def restart(self, now: float) -> None:
        """Let the next turn come in an interval from now."""
        self.next_turn = now + self._interval

    def clear(self) -> None:
        """Forget all waits: they have ended."""
        for each in (self._waits, self._urgent, self._failed, self._soon):
            each.clear()

    def add(self, wait: Wait) -> None:
        """Give a new wait its turn, and a poll soon."""
        self._waits.append(wait)
        self._urgent[wait.key] = None
        if self._early and len(self._soon) < MOST_EARLY:
            self._poll_early(wait, 0)

    def poll_soon(self, keys: Iterable[str]) -> None:
        """Let these keys be polled without waiting for their turn."""
        self._urgent.update(dict.fromkeys(keys))

    def take(self, now: float) -> list[str]:
        """Return the keys to poll now, at most twice a batch of them."""
        while self._soon and self._soon[0][0] <= now:
            _, _, age, wait = heapq.heappop(self._soon)
            if not wait.is_over:
                self._urgent[wait.key] = None
                if age + 1 < len(self._early):
                    self._poll_early(wait, age + 1)
        keys = _pop(self._urgent, self._batch)
        if now < self.next_turn:
            return keys
        turn = _pop(self._failed, self._batch) or self._pop_turn(now)
        return list(dict.fromkeys((*keys, *turn)))

    def on_success(self) -> None:
        """Poll those at once for which an earlier poll has failed."""
        self._urgent.update(self._failed)
        self._failed.clear()

    def on_failure(self, keys: Iterable[str], next_turn: float) -> None:
        """Poll these keys again at the next turn, which is later than usual."""
        self._failed.update(dict.fromkeys(keys))
        self.next_turn = next_turn

    def _poll_early(self, wait: Wait, age: int) -> None:
        when = wait.since + self._early[age]
        heapq.heappush(self._soon, (when, next(self._order), age, wait))

    def _pop_turn(self, now: float) -> list[str]:
        """Return the keys of the next batch that are due."""
        count = len(self._waits)
        size = min(count, self._batch)
        self.next_turn = now + self._interval * (size / count if count else 1.0)
        keys = []
        for _ in range(size):
            wait = self._waits.popleft()
            if not wait.is_over:
                self._waits.append(wait)
                if self._is_due(wait, now):
                    keys.append(wait.key)
        return keys

    def _is_due(self, wait: Wait, now: float) -> bool:
        # Half an interval of tolerance: a slightly late poll must not skip a turn.
        interval = min(self._max_interval, SHARE_OF_AGE * (now - wait.since))
        return now - wait.polled_at >= interval - self._interval / 2


class DeadlineQueue:
    """Waits in the order in which they are due: a heap, as there may be thousands.

    Args:
        poll_grace: How many seconds an expired wait may still take for its first poll:
            a server may accept a request and never answer.
    """

    def __init__(self, poll_grace: float) -> None:
        self._poll_grace = poll_grace
        self._heap: list[tuple[float, int, Wait]] = []
        self._order = itertools.count()
        self._active = 0

    def __len__(self) -> int:
        return len(self._heap)

    @property
    def first(self) -> float:
        """When the next wait is due, in seconds since 1970; infinite for none."""
        return self._heap[0][0] if self._heap else math.inf

    def set(self, waits: Iterable[Wait]) -> None:
        """Enter each of these waits at the time at which it is due."""
        for wait in waits:
            when = self._end_of(wait)
            if when != wait.queued_for and not wait.is_over:
                wait.queued_for = when
                heapq.heappush(self._heap, (when, next(self._order), wait))
        if len(self._heap) > STALE_FACTOR * (16 + self._active):
            self._heap = [item for item in self._heap if _is_current(item)]
            heapq.heapify(self._heap)
            self._active = len(self._heap)

    def due(self) -> Iterator[Wait]:
        """Yield the waits that are due now; each once, unless it is entered again."""
        now = time.time()
        while self._heap and self._heap[0][0] <= now:
            item = heapq.heappop(self._heap)
            if not _is_current(item):
                continue
            wait = item[2]
            if self._end_of(wait) > now:  # a sign of life, or a poll, has moved it
                self.set([wait])
            else:
                yield wait

    def _end_of(self, wait: Wait) -> float:
        """Return when a wait ends, unless something arrives."""
        end = min(wait.deadline, wait.liveness.silent_at)
        return end if wait.was_polled else max(end, wait.since + self._poll_grace)


def _is_current(item: tuple[float, int, Wait]) -> bool:
    """Return whether an entry is the newest one of its wait."""
    when, _, wait = item
    return when == wait.queued_for and not wait.is_over


def _pop(keys: dict[str, None], most: int) -> list[str]:
    taken = list(islice(keys, most))
    for key in taken:
        del keys[key]
    return taken
