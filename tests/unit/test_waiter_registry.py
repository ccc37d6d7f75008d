"""Waits for the same source share a waiter."""

from __future__ import annotations

import asyncio
import functools
import time

from runqy_provider.waiters.registry import close_waiters, shared_waiter
from runqy_provider.waiters.waiter import Waiter
from tests.unit.waiter_source import ARRIVED, LONG, SOON, FakeSource, start_wait


async def test_registry_waiter_close_error_closes_all_others(
    source: FakeSource,
) -> None:
    class Broken(FakeSource):
        async def aclose(self) -> None:
            raise LookupError("cannot be closed")

    broken = Broken()
    broken.results["a"] = source.results["a"] = ARRIVED
    for key, used in (("broken", broken), ("working", source)):
        waiter = shared_waiter(key, functools.partial(Waiter, used, interval=LONG))
        await waiter.wait("a", deadline=time.time() + LONG)
    await close_waiters()

    assert source.closed == 1


async def test_registry_equal_sources_share_a_waiter(source: FakeSource) -> None:
    def make() -> Waiter:
        return Waiter(source, interval=LONG)

    first = shared_waiter(("inbox", 1), make)
    wait = start_wait(first, "a")
    await source.polled.wait()

    assert shared_waiter(("inbox", 1), make) is first
    assert shared_waiter(("inbox", 2), make) is not first
    wait.cancel()
    await close_waiters()
    assert source.closed == 1


async def test_registry_idle_waiter_is_forgotten(source: FakeSource) -> None:
    first = shared_waiter("a", lambda: Waiter(source, interval=SOON))
    await first.wait("any", deadline=0.0)
    while not source.closed:  # it closes at the end of its interval
        await asyncio.sleep(SOON)
    shared_waiter("b", lambda: Waiter(source, interval=LONG))

    assert shared_waiter("a", lambda: Waiter(source, interval=LONG)) is not first
    await close_waiters()


async def test_registry_two_sources_have_two_waiters(source: FakeSource) -> None:
    made: list[Waiter] = []

    def make() -> Waiter:
        made.append(Waiter(source, interval=LONG))
        return made[-1]

    # Many triggers start at once: all are created before the first one waits.
    waits = [
        asyncio.ensure_future(
            shared_waiter(key, make).wait("a", deadline=time.time() + LONG)
        )
        for _ in range(100)
        for key in ("inbox", "bucket")
    ]
    await source.next_poll()
    assert len(made) == 2
    for wait in waits:
        wait.cancel()
    await asyncio.gather(*waits, return_exceptions=True)
    await close_waiters()
