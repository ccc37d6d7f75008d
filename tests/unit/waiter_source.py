"""A source in memory for the tests of waiters, and one that does not answer."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from runqy_provider.waiters.source import Arrival

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection

    from runqy_provider.waiters.source import PollResult
    from runqy_provider.waiters.waiter import Waiter

ARRIVED = Arrival("completed", "s3://results/a", 1.0)

#: A short and a long interval, in seconds.
SOON = 0.05
LONG = 60.0


class FakeSource:
    """A source whose results, hints and errors the test sets.

    Attributes:
        results: What a poll returns, by key.
        error: What a poll raises instead, if anything.
        hint_queue: Hints to yield, and errors to raise between them.
        polls: The keys of every poll.
        polled: Set by every poll.
        listeners: How often the stream of hints was opened.
        closed: How often the source was closed.
    """

    def __init__(self) -> None:
        self.results: dict[str, PollResult] = {}
        self.error: BaseException | None = None
        self.hint_queue: asyncio.Queue[str | BaseException | None] = asyncio.Queue()
        self.polls: list[set[str]] = []
        self.polled = asyncio.Event()
        self.listeners = 0
        self.closed = 0

    async def poll(self, keys: Collection[str]) -> dict[str, PollResult]:
        self.polls.append(set(keys))
        self.polled.set()
        if self.error is not None:
            raise self.error
        return {key: self.results[key] for key in keys if key in self.results}

    async def hints(self) -> AsyncIterator[str | None]:
        self.listeners += 1
        if self.listeners > 1:
            yield None  # something may have been missed
        while True:
            hint = await self.hint_queue.get()
            if isinstance(hint, BaseException):
                raise hint
            yield hint

    async def aclose(self) -> None:
        self.closed += 1

    async def next_poll(self) -> None:
        """Wait for one more poll."""
        self.polled.clear()
        await self.polled.wait()

    def polls_of(self, key: str) -> int:
        """Return how many polls were for a key."""
        return sum(key in keys for keys in self.polls)


class StuckSource(FakeSource):
    """A source that does not answer polls for the key ``stuck`` until it is released.

    Attributes:
        released: Set by the test: polls return.
        cancelled: How many polls were cancelled.
    """

    def __init__(self) -> None:
        super().__init__()
        self.released = asyncio.Event()
        self.cancelled = 0

    async def poll(self, keys: Collection[str]) -> dict[str, PollResult]:
        found = await super().poll(keys)
        if "stuck" in keys:
            try:
                await self.released.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        return found


def start_wait(
    waiter: Waiter, key: str, seconds: float = LONG
) -> asyncio.Task[Arrival | None]:
    """Begin to wait for a key."""
    return asyncio.create_task(waiter.wait(key, deadline=time.time() + seconds))
