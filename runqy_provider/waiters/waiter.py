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
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from runqy_provider.errors import RunqyError, SinkUnavailable
from runqy_provider.python_compat import cancel, is_cancelled, timeout
from runqy_provider.waiters.backoff import backoff_delays
from runqy_provider.waiters.deadlines import DeadlineQueue
from runqy_provider.waiters.liveness import LivenessMonitor
from runqy_provider.waiters.source import StatusUpdate
from runqy_provider.waiters.turns import Turns
from runqy_provider.waiters.wait import POLL_GRACE, Wait

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable, Sequence

    from runqy_provider.waiters.source import Arrival, Source

log = logging.getLogger(__name__)

#: Seconds between two polls of a source that is unavailable: first and longest.
FIRST_DELAY = 0.5
LONGEST_DELAY = 30.0

#: Seconds for which polls may fail with an unexpected error before the waits fail.
UNEXPECTED_LIMIT = 120.0

#: Seconds that a poll may still take when its waiter is closed.
LAST_POLL = 1.0

#: Seconds that a source may take to close its stream of hints.
CLOSE_TIMEOUT = 15.0

#: Seconds after which it is cancelled again.
CANCEL_AGAIN = 0.5


class Waiter:
    """Notices arrivals at one source for any number of waits.

    Args:
        source: What to poll.
        interval: Seconds between two polls.
        max_interval: Seconds between two polls for an old wait: for sources without
            hints, so that young waits end soon and old ones cost little. None: all
            waits are polled at every interval.
        batch: How many keys are polled at once; None: all, where the source looks for
            any number of them by one request.
        early: Ages of a wait, in seconds, at which it is polled beside that.
    """

    def __init__(
        self,
        source: Source,
        interval: float,
        max_interval: float | None = None,
        *,
        batch: int | None = None,
        early: Sequence[float] = (),
    ) -> None:
        self._source = source
        self._turns = Turns(interval, max_interval, batch, early)
        # Tuples, as almost all have one wait, and lists take more memory.
        self._waits: dict[str, tuple[Wait, ...]] = {}
        self._deadlines = DeadlineQueue()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._unexpected_since = 0.0
        #: When the source was last polled with success, in seconds since 1970.
        self.last_poll: float | None = None
        #: Why the last poll failed; None while polls succeed.
        self.last_error: str | None = None
        #: See ``liveness.Reachable``.
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
            deadline: When to give up, in seconds since 1970. Where it has passed, the
                source is polled once.
            liveness: Receives status updates, and says when the job is silent.

        Returns:
            The arrival; None at the deadline, or where the job is silent for too long.

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
        self._turns.add(wait)
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

    def _poll_soon(self, keys: Iterable[str]) -> None:
        self._turns.poll_soon(keys)
        self._wake.set()

    async def _run(self) -> None:
        listener = asyncio.create_task(self._listen())
        try:
            await self._poll_until_idle()
        finally:
            try:
                await self._stop(listener)
            finally:
                # Also where the waiter is closed while its loop ends by itself.
                await self._source.aclose()

    async def _stop(self, listener: asyncio.Task[None]) -> None:
        end = time.monotonic() + CLOSE_TIMEOUT
        while not listener.done():
            # Again, as client libraries may swallow a cancellation (redis-py does
            # while it connects); and bounded, or a task could not end.
            cancel(listener)
            await asyncio.wait([listener], timeout=CANCEL_AGAIN)
            if time.monotonic() > end:
                log.warning(
                    "A source did not close its stream of hints: %r", self._source
                )
                return

    async def _poll_until_idle(self) -> None:
        turns = self._turns
        turns.restart(time.time())
        delays = backoff_delays(FIRST_DELAY, LONGEST_DELAY)
        while True:
            _raise_if_cancelled()
            now = time.time()
            if now >= turns.next_turn and not self._waits:
                turns.clear()
                return
            keys = [key for key in turns.take(now) if key in self._waits]
            if keys:
                # Listed now: a wait may be given up before the poll begins.
                waits = [wait for key in keys for wait in self._waits[key]]
                if await self._end_due_during(self._poll(keys, waits)):
                    delays = backoff_delays(FIRST_DELAY, LONGEST_DELAY)
                    turns.on_success()
                else:
                    turns.on_failure(keys, time.time() + next(delays))
            self._end_due()
            await self._sleep_until(min(turns.next_poll, self._deadlines.first))

    async def _end_due_during(self, poll: Coroutine[Any, Any, bool]) -> bool:
        """Await a poll, however long it takes; end the waits that are due meanwhile."""
        began = time.time()
        task = asyncio.ensure_future(poll)
        try:
            while not task.done():
                # A wait that is added meanwhile is not due before its own grace ends.
                pause = min(max(0.0, self._deadlines.first - time.time()), POLL_GRACE)
                await asyncio.wait([task], timeout=pause)
                if not task.done() and time.time() - began >= POLL_GRACE:
                    self.last_error = (
                        f"A poll that began {time.time() - began:.0f} s ago has not "
                        "been answered yet."
                    )
                self._end_due()
        finally:
            try:
                # Most polls end at once; libraries leave sockets open where they are
                # cancelled while they connect.
                await asyncio.wait([task], timeout=LAST_POLL)
            finally:
                if not task.done():
                    cancel(task)
                    await asyncio.wait([task])
        return task.result()

    async def _poll(self, keys: list[str], waits: list[Wait]) -> bool:
        """Poll these keys once; return False where the source was unavailable."""
        began = time.time()
        try:
            results = await self._source.poll(keys)
        except SinkUnavailable as error:
            if self.last_error is None:
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
            if time.time() - self._unexpected_since > UNEXPECTED_LIMIT:
                raise
            log.exception("Polling failed unexpectedly, will retry")
            self._record_error(waits, error)
            return False
        self.last_error, self.last_poll = None, time.time()
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
        self.last_error = f"{type(error).__name__}: {error}"
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
        for delay in backoff_delays(FIRST_DELAY, LONGEST_DELAY):
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
                # aiormq does this where a broker stops answering.
                log.warning("The stream of hints was cancelled, polling continues")
            except Exception:
                log.exception(
                    "The stream of hints failed unexpectedly, polling continues"
                )
            else:
                return
            await asyncio.sleep(delay)


def _raise_if_cancelled() -> None:
    if is_cancelled():
        raise asyncio.CancelledError


def _end_all(waits: Iterable[Wait], error: BaseException) -> None:
    for wait in waits:
        wait.end(error=error)
