"""How a waiter closes, also if its source delays that."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from runqy_provider.python_compat import timeout
from runqy_provider.waiters.waiter import Timing, Waiter
from tests.unit.waiter_source import (
    ARRIVED,
    LONG,
    SOON,
    FakeSource,
    StuckSource,
    start_wait,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection

    from runqy_provider.waiters.source import Arrival, PollResult


async def test_waiter_hints_swallow_cancellation_are_cancelled_again() -> None:
    """The library redis-py swallows a cancellation while it connects."""

    class Stubborn(FakeSource):
        async def hints(self) -> AsyncIterator[str | None]:
            try:
                await asyncio.sleep(LONG)
            except asyncio.CancelledError:
                self.listeners += 1
            async for hint in super().hints():
                yield hint

    stubborn = Stubborn()
    waiter = Waiter(stubborn, interval=LONG)
    waiting = start_wait(waiter, "a")
    await stubborn.next_poll()
    began = time.monotonic()
    await waiter.aclose()

    assert time.monotonic() - began < Timing().close / 3
    assert (stubborn.listeners, stubborn.closed) == (2, 1)
    waiting.cancel()


async def test_waiter_poll_swallows_cancellation_waiter_closes() -> None:
    """The library redis-py swallows a cancellation while it connects."""

    class Stubborn(FakeSource):
        async def poll(self, keys: Collection[str]) -> dict[str, PollResult]:
            results = await super().poll(keys)
            try:
                await asyncio.sleep(LONG)
            except asyncio.CancelledError:
                return results
            raise AssertionError

    stubborn = Stubborn()
    waiter = Waiter(stubborn, interval=LONG)
    waiting = start_wait(waiter, "a")
    await stubborn.next_poll()
    async with timeout(Timing().close):
        await waiter.aclose()

    assert stubborn.closed == 1
    waiting.cancel()


async def test_waiter_closed_twice_at_once_closes_source() -> None:
    class Slow(FakeSource):
        async def hints(self) -> AsyncIterator[str | None]:
            self.listeners += 1
            try:
                await asyncio.sleep(LONG)
            except asyncio.CancelledError:
                stopping.set()
                await asyncio.sleep(SOON)
            yield None

    stopping = asyncio.Event()
    slow = Slow()
    waiter = Waiter(slow, interval=SOON)
    assert await waiter.wait("a", deadline=0.0) is None
    await stopping.wait()  # it closes by itself, as it has no waits
    await waiter.aclose()

    assert slow.closed == 1


async def test_waiter_wait_added_while_closing_is_served() -> None:
    waits: list[asyncio.Task[Arrival | None]] = []

    class SlowToClose(FakeSource):
        async def aclose(self) -> None:
            if not waits:
                waits.append(start_wait(waiter, "b"))
                await asyncio.sleep(0)
            await super().aclose()

    source = SlowToClose()
    waiter = Waiter(source, interval=SOON)
    source.results.update(a=ARRIVED, b=ARRIVED)
    await waiter.wait("a", deadline=time.time() + LONG)
    while not waits:
        await asyncio.sleep(0.01)

    assert await waits[0] == ARRIVED
    await waiter.aclose()


async def test_waiter_close_lets_running_poll_end() -> None:
    source = StuckSource()
    waiter = Waiter(source, interval=LONG)
    wait = start_wait(waiter, "stuck")
    await source.polled.wait()
    closing = asyncio.create_task(waiter.aclose())
    await asyncio.sleep(0)
    source.released.set()
    await closing

    assert (source.cancelled, source.closed) == (0, 1)
    wait.cancel()
