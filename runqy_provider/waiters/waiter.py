# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The waiter: one loop and one source for all waits of one place.

Waits look at state. A hint only says when to look; whatever came before the wait, or
while nobody listened, is found by the first look and by the sweeps.
"""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import logging
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from runqy_provider.errors import RunqyError, SinkUnavailable
from runqy_provider.waiters.backoff import pauses
from runqy_provider.waiters.deadlines import LOOK_PATIENCE, Timers, Wait
from runqy_provider.waiters.liveness import Vigil
from runqy_provider.waiters.source import News

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable

    from runqy_provider.waiters.source import Arrival, Source

log = logging.getLogger(__name__)

#: Seconds between two tries of a source that cannot be reached: first and longest.
FIRST_DELAY = 0.5
LONGEST_DELAY = 30.0

#: Seconds for which looks may fail in a way that nobody has thought of.
UNEXPECTED_PATIENCE = 120.0

#: Seconds that a look may still take when its waiter is closed.
LAST_LOOK = 1.0

#: Seconds that a source may take to stop listening.
CLOSE_TIMEOUT = 15.0

#: Seconds after which it is told so again.
CANCEL_AGAIN = 0.5

#: Where looks get rarer with age: a job that has run for a minute is looked at every
#: six seconds, so that the wait is at most this share longer than the job.
SHARE_OF_AGE = 0.1


class Waiter:
    """Notices arrivals at one source for any number of waits.

    Args:
        source: Where to look.
        sweep: Seconds between two looks.
        longest: Seconds between two looks for an old wait: for places that give no
            hints, so that young waits end soon and old ones cost little. None: all
            waits are looked for at every sweep.
    """

    def __init__(
        self, source: Source, sweep: float, longest: float | None = None
    ) -> None:
        self._source = source
        self._sweep = sweep
        self._longest = sweep if longest is None else max(sweep, longest)
        self._waits: dict[str, list[Wait]] = {}
        self._dirty: set[str] = set()
        self._timers = Timers()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._unexpected_since = 0.0
        #: When everything asked for was last looked at, in seconds since 1970.
        self.last_look: float | None = None
        #: Why the last look failed; None while looks succeed.
        self.trouble: str | None = None

    @property
    def is_idle(self) -> bool:
        """True once nobody waits any more and nothing runs."""
        # One that has not begun is about to: somebody has just asked for it.
        return not self._waits and self._task is not None and self._task.done()

    async def wait(
        self,
        address: str,
        *,
        deadline: float,
        vigil: Vigil | None = None,
    ) -> Arrival | None:
        """Wait for a final delivery.

        Args:
            address: Which, in the words of the source.
            deadline: When to give up, in seconds since 1970. A deadline in the past
                still gets one look.
            vigil: Hears what is new meanwhile, and says how long silence is borne.

        Returns:
            The arrival, or None at the deadline or after too long a silence.

        Raises:
            RunqyError: The source says that it will never come.
        """
        done: asyncio.Future[Arrival | None]
        done = asyncio.get_running_loop().create_future()
        wait = Wait(address, deadline, done, vigil or Vigil())
        self._waits.setdefault(address, []).append(wait)
        self._timers.set([wait])
        self._look_soon({address})
        self._start()
        try:
            return await done
        finally:
            self._forget(wait)

    async def aclose(self) -> None:
        """Stop the loop and let go of the source."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            # Whatever it ended with, its waits have heard of it.
            await asyncio.wait([task])
            if not task.cancelled() and task.exception() is not None:
                log.error("A waiter closed with an error", exc_info=task.exception())

    def _start(self) -> None:
        if self._task is None or self._task.done():
            # An empty context: the loop outlives the trigger that happens to start
            # it, and must not log into that trigger's task.
            self._task = asyncio.get_running_loop().create_task(
                self._run(), context=contextvars.Context()
            )
            self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or task is not self._task:
            return
        error = task.exception()
        if error is not None:
            # Silent, the waits would hang: a fault of ours fails them with words.
            log.error("The waiter's loop failed", exc_info=error)
            _end_all(itertools.chain(*self._waits.values()), error)
        elif self._waits:
            self._start()  # a wait came while the loop closed down for want of any

    def _forget(self, wait: Wait) -> None:
        group = self._waits[wait.address]
        group.remove(wait)
        if not group:
            del self._waits[wait.address]

    def _look_soon(self, addresses: Iterable[str]) -> None:
        self._dirty.update(addresses)
        self._wake.set()

    async def _run(self) -> None:
        listener = asyncio.create_task(self._listen())
        try:
            await self._look_until_idle()
        finally:
            try:
                await self._stop(listener)
            finally:
                # Also where it is closed while it closes by itself.
                await self._source.aclose()

    async def _stop(self, listener: asyncio.Task[None]) -> None:
        end = time.monotonic() + CLOSE_TIMEOUT
        while not listener.done():
            # Again, as client libraries may swallow a cancellation (redis-py does
            # while it connects); and bounded, or a task could not end.
            listener.cancel()
            await asyncio.wait([listener], timeout=CANCEL_AGAIN)
            if time.monotonic() > end:
                log.warning("A source did not stop listening: %r", self._source)
                return

    async def _look_until_idle(self) -> None:
        next_sweep = time.time() + self._sweep
        delays = pauses(FIRST_DELAY, LONGEST_DELAY)
        while True:
            _heed_cancellation()
            if time.time() >= next_sweep:
                if not self._waits:
                    return
                now = time.time()
                self._dirty.update(key for key in self._waits if self._is_due(key, now))
                next_sweep = time.time() + self._sweep
            asked = [key for key in self._dirty if self._is_open(key)]
            self._dirty.clear()
            if asked:
                # Listed now: a wait may be given up before the look begins.
                looking = [wait for key in asked for wait in self._waits[key]]
                if await self._end_meanwhile(self._look(asked, looking)):
                    delays = pauses(FIRST_DELAY, LONGEST_DELAY)
                else:
                    next_sweep = time.time() + next(delays)
            self._end_what_is_due()
            await self._sleep_until(min(next_sweep, self._timers.first))

    def _is_open(self, address: str) -> bool:
        return any(not wait.done.done() for wait in self._waits.get(address, ()))

    def _is_due(self, address: str, now: float) -> bool:
        # Half a sweep of slack: a look must not slip a sweep for being a little late.
        slack = self._sweep / 2
        return any(
            now - wait.looked
            >= min(self._longest, SHARE_OF_AGE * (now - wait.since)) - slack
            for wait in self._waits[address]
            if not wait.done.done()
        )

    async def _end_meanwhile(self, look: Coroutine[Any, Any, bool]) -> bool:
        """Await a look, however long it takes; end the waits whose time comes first."""
        began = time.time()
        task = asyncio.ensure_future(look)
        try:
            while not task.done():
                # A wait that comes meanwhile is not due before its own patience ends.
                pause = min(max(0.0, self._timers.first - time.time()), LOOK_PATIENCE)
                await asyncio.wait([task], timeout=pause)
                if not task.done() and time.time() - began >= LOOK_PATIENCE:
                    self.trouble = (
                        f"A look that began {time.time() - began:.0f} s ago has had no "
                        "answer yet."
                    )
                self._end_what_is_due()
        finally:
            try:
                # Most come to their end at once; libraries leave sockets open where
                # they are cancelled as they connect.
                await asyncio.wait([task], timeout=LAST_LOOK)
            finally:
                if not task.done():
                    task.cancel()
                    await asyncio.wait([task])
        return task.result()

    async def _look(self, asked: list[str], looking: list[Wait]) -> bool:
        """Look once for these addresses; False: the source was out of reach."""
        began = time.time()
        try:
            answers = await self._source.look(asked)
        except SinkUnavailable as error:
            if self.trouble is None:
                log.warning("A look failed; waiting goes on: %s", error)
            self._note_trouble(looking, error)
            return False
        except asyncio.CancelledError:
            _heed_cancellation()
            # A library's own, not ours: unheeded, it would end the loop in silence.
            self._note_trouble(looking, SinkUnavailable("the look was cut off"))
            return False
        except Exception as error:
            # A fault of ours, or of a library: it may pass, and ends the waits if not.
            self._unexpected_since = self._unexpected_since or began
            if time.time() - self._unexpected_since > UNEXPECTED_PATIENCE:
                raise
            log.exception("A look failed unexpectedly; it is tried again")
            self._note_trouble(looking, error)
            return False
        self.trouble, self.last_look = None, time.time()
        self._unexpected_since = 0.0
        for wait in looking:
            wait.looked, wait.was_asked = began, True
            wait.vigil.regain(self)
            answer = answers.get(wait.address)
            if isinstance(answer, RunqyError):
                _end_all([wait], answer)
            elif isinstance(answer, News):
                wait.vigil.hear(answer)
            elif answer is not None and not wait.done.done():
                wait.done.set_result(answer)
        self._timers.set(looking)
        return True

    def _note_trouble(self, looking: Iterable[Wait], error: Exception) -> None:
        self.trouble = f"{type(error).__name__}: {error}"
        for wait in looking:
            wait.was_asked = True
            wait.vigil.lose(self)
            wait.vigil.hear(News(f"A look failed; waiting goes on: {error}"))
        self._timers.set(looking)

    def _end_what_is_due(self) -> None:
        for wait in self._timers.due():
            wait.done.set_result(None)

    async def _sleep_until(self, when: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, when - time.time())):
                await self._wake.wait()
        self._wake.clear()

    async def _listen(self) -> None:
        """Turn hints into looks; a broken stream of hints is opened again."""
        for delay in pauses(FIRST_DELAY, LONGEST_DELAY):
            try:
                async for hint in self._source.hints():
                    # None, after a (re)connection: anything may have been missed.
                    fresh = self._waits if hint is None else {hint} & self._waits.keys()
                    if fresh:
                        self._look_soon(fresh)
            except SinkUnavailable as error:
                log.warning("Listening broke off, sweeps go on: %s", error)
            except asyncio.CancelledError:
                _heed_cancellation()
                # aiormq's way to say that a broker fell silent.
                log.warning("Listening was cut off, sweeps go on")
            except Exception:
                log.exception("Listening failed unexpectedly, sweeps go on")
            else:
                return
            await asyncio.sleep(delay)


def _heed_cancellation() -> None:
    # A client library may swallow it in a look, as redis-py does while it connects.
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def _end_all(waits: Iterable[Wait], error: BaseException) -> None:
    for wait in waits:
        if not wait.done.done():
            wait.done.set_exception(error)
