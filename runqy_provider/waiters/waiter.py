# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The waiter: one loop that polls one source for any number of waits.

A wait looks at state. A hint only says when to poll: what arrived before the wait
began, or while the stream of hints was interrupted, is found by the next poll.
"""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import logging
import math
import random
import time
import weakref
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from runqy_provider.errors import RunqyError, SinkUnavailable
from runqy_provider.python_compat import cancel, is_cancelled, timeout
from runqy_provider.waiters.source import StatusUpdate
from runqy_provider.waiters.wait import (
    DeadlineQueue,
    LivenessMonitor,
    PollSchedule,
    Wait,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence

    from runqy_provider.waiters.source import Arrival, Source

T = TypeVar("T")

log = logging.getLogger(__name__)

#: The waiters of each event loop: one per source.
_waiters: weakref.WeakKeyDictionary[
    asyncio.AbstractEventLoop, dict[Callable[[], Waiter], Waiter]
] = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class Timing:
    """How much time a waiter allows, in seconds.

    Attributes:
        first_delay: Between the first two polls of a source that is unavailable.
        longest_delay: The longest such delay.
        poll_grace: How long a poll may take before it counts as not answered.
        unexpected: For how long polls may fail with an unexpected error before the
            waits fail.
        last_poll: How long a poll may still take when the waiter is closed.
        close: How long a source may take to close its stream of hints.
        cancel_again: After how long that stream is cancelled again.
    """

    first_delay: float = 0.5
    longest_delay: float = 30.0
    poll_grace: float = 20.0
    unexpected: float = 120.0
    last_poll: float = 1.0
    close: float = 15.0
    cancel_again: float = 0.5


_TIMING = Timing()


def backoff_delays(first: float, longest: float) -> Iterator[float]:
    """Yield delays in seconds: each twice the one before, capped, with jitter."""
    for n in itertools.count():
        limit = min(first * 2 ** min(n, 10), longest)
        yield limit * random.uniform(0.5, 1)  # noqa: S311 - not for secrets


@dataclass(frozen=True, slots=True)
class WaitTarget:
    """One source at which a wait looks for its delivery.

    Attributes:
        waiter_factory: Makes the waiter; waits with equal factories share one. Best a
            frozen dataclass: there may be thousands, and a closure takes more memory.
        key: What the source knows this wait by.
        is_required: True if no delivery can arrive while this source fails; False for
            a source that only notices earlier what another one holds.
        is_relayed: True if what arrives at this source is only moved to another one,
            which must be polled again afterwards.
    """

    waiter_factory: Callable[[], Waiter]
    key: str
    is_required: bool = True
    is_relayed: bool = False


class Waiter:
    """Notices arrivals at one source for any number of waits.

    Args:
        source: What to poll.
        interval: Seconds between two polls.
        max_interval: Seconds between two polls for an old wait: for sources without
            hints, so that young waits end soon and old ones cost little. None: all
            waits are polled at every interval.
        batch: How many keys are polled at once; None: all, if the source looks for
            any number of them by one request.
        early: Ages of a wait, in seconds, at which it is polled beside that.
        timing: How much time polls and closing may take.
    """

    def __init__(
        self,
        source: Source,
        interval: float,
        max_interval: float | None = None,
        *,
        batch: int | None = None,
        early: Sequence[float] = (),
        timing: Timing = _TIMING,
    ) -> None:
        self._source = source
        self._timing = timing
        self._schedule = PollSchedule(interval, max_interval, batch, early)
        # Tuples, as almost all have one wait, and lists take more memory.
        self._waits: dict[str, tuple[Wait, ...]] = {}
        self._deadlines = DeadlineQueue(timing.poll_grace)
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._unexpected_since = 0.0
        #: When the source was last polled with success, in seconds since 1970.
        self.last_poll: float | None = None
        #: Why the last poll failed; None while polls succeed.
        self.last_error: str | None = None
        self._failure: str | None = None
        #: Since when it can be polled; see ``wait.Reachable``.
        self.reachable_since = 0.0

    @property
    def is_idle(self) -> bool:
        """Whether there are no waits and the loop has ended."""
        # A loop that has not started yet will: its first wait is just being made.
        return not self._waits and self._task is not None and self._task.done()

    async def wait(
        self,
        key: str,
        *,
        deadline: float,
        liveness: LivenessMonitor | None = None,
    ) -> Arrival | None:
        """Wait for a final delivery.

        Args:
            key: What the source knows the delivery by.
            deadline: When to give up, in seconds since 1970. If it has passed, the
                source is polled once.
            liveness: Receives status updates, and says when the job is silent.

        Returns:
            The arrival; None at the deadline, or if the job is silent for too long.

        Raises:
            RunqyError: The source says that the delivery will not arrive.
        """
        done: asyncio.Future[Arrival | None]
        done = asyncio.get_running_loop().create_future()

        def on_end(
            _wait: Wait, arrival: Arrival | None, error: BaseException | None
        ) -> None:
            if done.done():
                return  # it was cancelled
            if error is None:
                done.set_result(arrival)
            else:
                done.set_exception(error)

        wait = Wait(key, deadline, liveness or LivenessMonitor(), on_end)
        self.add(wait)
        try:
            return await done
        finally:
            self.remove(wait)

    def add(self, wait: Wait) -> None:
        """Begin a wait; its ``on_end`` is called when it ends.

        Args:
            wait: The wait; it must be removed in the end.
        """
        wait.waiter = self
        self._waits[wait.key] = (*self._waits.get(wait.key, ()), wait)
        wait.liveness.add_source(self)
        self._deadlines.set([wait])
        self._schedule.add(wait)
        self._wake.set()
        self._start()

    def remove(self, wait: Wait) -> None:
        """Forget a wait that was added, whether it has ended or not."""
        wait.is_over = True
        others = tuple(each for each in self._waits[wait.key] if each is not wait)
        if others:
            self._waits[wait.key] = others
        else:
            del self._waits[wait.key]

    async def aclose(self) -> None:
        """Stop the loop and close the source."""
        task, self._task = self._task, None
        if task is not None:
            cancel(task)
            # Whatever it ended with, its waits have received it.
            await asyncio.wait([task])
            if not task.cancelled() and task.exception() is not None:
                log.error("A waiter closed with an error", exc_info=task.exception())

    def _start(self) -> None:
        if self._task is None or self._task.done():
            # An empty context: the loop outlives the trigger that happens to start
            # it, and must not log into that trigger's task.
            self._task = contextvars.Context().run(asyncio.create_task, self._run())
            self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or task is not self._task:
            return
        error = task.exception()
        if error is not None:
            # Without this the waits would hang.
            log.error("The waiter's loop failed", exc_info=error)
            _end_all(itertools.chain(*self._waits.values()), error)
        elif self._waits:
            self._start()  # a wait was added while the loop ended for lack of waits

    def _delays(self) -> Iterator[float]:
        return backoff_delays(self._timing.first_delay, self._timing.longest_delay)

    def _poll_soon(self, keys: Iterable[str]) -> None:
        self._schedule.poll_soon(keys)
        self._wake.set()

    async def _run(self) -> None:
        listener = asyncio.create_task(self._listen())
        try:
            await self._poll_until_idle()
        finally:
            try:
                await self._stop(listener)
            finally:
                # Also if the waiter is closed while its loop ends by itself.
                await self._source.aclose()

    async def _stop(self, listener: asyncio.Task[None]) -> None:
        end = time.monotonic() + self._timing.close
        while not listener.done():
            # Again, as client libraries may swallow a cancellation (redis-py does
            # while it connects); and bounded, or a task could not end.
            cancel(listener)
            await asyncio.wait([listener], timeout=self._timing.cancel_again)
            if time.monotonic() > end:
                log.warning(
                    "A source did not close its stream of hints: %r", self._source
                )
                return

    async def _poll_until_idle(self) -> None:
        schedule = self._schedule
        schedule.restart(time.time())
        delays = self._delays()
        while True:
            _raise_if_cancelled()
            now = time.time()
            if now >= schedule.next_turn and not self._waits:
                schedule.clear()
                return
            keys = [key for key in schedule.take(now) if key in self._waits]
            if keys:
                # Listed now: a wait may be given up before the poll begins.
                waits = [wait for key in keys for wait in self._waits[key]]
                if await self._end_due_during(self._poll(keys, waits)):
                    delays = self._delays()
                    schedule.on_success()
                else:
                    schedule.on_failure(keys, time.time() + next(delays))
            self._end_due()
            await self._sleep_until(min(schedule.next_poll, self._deadlines.first))

    async def _end_due_during(self, poll: Coroutine[Any, Any, bool]) -> bool:
        """Await a poll, however long it takes; end the waits that are due meanwhile."""
        began, grace = time.time(), self._timing.poll_grace
        failure = f" Before it: {self._failure}" if self._failure else ""
        task = asyncio.ensure_future(poll)
        try:
            while not task.done():
                # A wait that is added meanwhile is not due before its own grace ends.
                pause = min(max(0.0, self._deadlines.first - time.time()), grace)
                await asyncio.wait([task], timeout=pause)
                now = time.time()
                # A wait whose grace ends was added before this poll began.
                if not task.done() and now >= min(began + grace, self._deadlines.first):
                    self.last_error = (
                        f"A poll that began {now - began:.0f} s ago has not been "
                        f"answered yet.{failure}"
                    )
                self._end_due()
        finally:
            try:
                # Most polls end at once; libraries leave sockets open if they are
                # cancelled while they connect.
                await asyncio.wait([task], timeout=self._timing.last_poll)
            finally:
                if not task.done():
                    cancel(task)
                    await asyncio.wait([task])
        return task.result()

    async def _poll(self, keys: list[str], waits: list[Wait]) -> bool:
        """Poll these keys once; return False if the source was unavailable."""
        began = time.time()
        try:
            results = await self._source.poll(keys)
        except SinkUnavailable as error:
            if self._failure is None:
                log.warning("Polling failed, will retry: %s", error)
            self._record_error(waits, error)
            return False
        except asyncio.CancelledError:
            _raise_if_cancelled()
            # A library cancelled itself: unhandled, it would end the loop silently.
            self._record_error(waits, SinkUnavailable("the poll was cancelled"))
            return False
        except Exception as error:
            # A bug, here or in a library: it may pass, and fails the waits if not.
            self._unexpected_since = self._unexpected_since or began
            if time.time() - self._unexpected_since > self._timing.unexpected:
                raise
            log.exception("Polling failed unexpectedly, will retry")
            self._record_error(waits, error)
            return False
        self.last_error, self._failure, self.last_poll = None, None, time.time()
        self._unexpected_since = 0.0
        if self.reachable_since == math.inf:
            self.reachable_since = self.last_poll
        for wait in waits:
            wait.polled_at, wait.was_polled = began, True
            result = results.get(wait.key)
            if isinstance(result, RunqyError):
                _end_all([wait], result)
            elif isinstance(result, StatusUpdate):
                wait.liveness.on_update(result)
            elif result is not None:
                wait.end(result)
        self._deadlines.set(waits)
        return True

    def _record_error(self, waits: Iterable[Wait], error: Exception) -> None:
        self.last_error = self._failure = f"{type(error).__name__}: {error}"
        self.reachable_since = math.inf
        for wait in waits:
            wait.was_polled = True
            wait.liveness.on_update(
                StatusUpdate(f"Polling failed, will retry: {error}")
            )
        self._deadlines.set(waits)

    def _end_due(self) -> None:
        for wait in self._deadlines.due():
            wait.end()

    async def _sleep_until(self, when: float) -> None:
        pause = when - time.time()
        if pause > 0:
            with suppress(asyncio.TimeoutError):
                async with timeout(pause):
                    await self._wake.wait()
        else:
            await asyncio.sleep(0)
        self._wake.clear()

    async def _listen(self) -> None:
        """Poll at each hint; reopen a broken stream of hints."""
        for delay in self._delays():
            try:
                async for hint in self._source.hints():
                    # None after a (re)connection: any hint may have been missed.
                    fresh = self._waits if hint is None else {hint} & self._waits.keys()
                    if fresh:
                        self._poll_soon(fresh)
            except SinkUnavailable as error:
                log.warning("The stream of hints broke, polling continues: %s", error)
            except asyncio.CancelledError:
                _raise_if_cancelled()
                # aiormq does this if a broker stops answering.
                log.warning("The stream of hints was cancelled, polling continues")
            except Exception:
                log.exception(
                    "The stream of hints failed unexpectedly, polling continues"
                )
            else:
                return
            await asyncio.sleep(delay)


def shared_waiter(factory: Callable[[], Waiter]) -> Waiter:
    """Return the running loop's waiter for a source.

    Args:
        factory: Makes the waiter for the first wait; waits with equal ones share it.
    """
    waiters = _waiters.setdefault(asyncio.get_running_loop(), {})
    known = waiters.get(factory)
    if known is None:
        for idle in [key for key, waiter in waiters.items() if waiter.is_idle]:
            del waiters[idle]
        known = waiters[factory] = factory()
    return known


async def close_waiters() -> None:
    """Close all waiters of the running loop; for loops that end, as in a worker."""
    for waiter in _waiters.pop(asyncio.get_running_loop(), {}).values():
        await waiter.aclose()


def _raise_if_cancelled() -> None:
    if is_cancelled():
        raise asyncio.CancelledError


def _end_all(waits: Iterable[Wait], error: BaseException) -> None:
    for wait in waits:
        wait.end(error=error)


def run_wait(wait: Coroutine[Any, Any, T]) -> T:
    """Return what a wait returns, in a process without an event loop: a worker."""

    async def run_and_close() -> T:
        try:
            return await wait
        finally:
            await close_waiters()

    return asyncio.run(run_and_close())
