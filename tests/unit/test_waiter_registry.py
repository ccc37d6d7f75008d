"""Waits for the same source share a waiter."""

from __future__ import annotations

import asyncio
import functools
import time
from dataclasses import dataclass, field

from runqy_provider.waiters.waiter import Waiter, close_waiters, shared_waiter
from tests.unit.waiter_source import ARRIVED, LONG, SOON, FakeSource, start_wait


@dataclass(frozen=True)
class Factory:
    """Makes a waiter; equal to those of the same name."""

    name: str
    source: FakeSource = field(compare=False)
    made: list[Waiter] = field(default_factory=list, compare=False)

    def __call__(self) -> Waiter:
        self.made.append(Waiter(self.source, interval=LONG))
        return self.made[-1]


async def test_registry_waiter_close_error_closes_all_others(
    source: FakeSource,
) -> None:
    class Broken(FakeSource):
        async def aclose(self) -> None:
            raise LookupError("cannot be closed")

    broken = Broken()
    broken.results["a"] = source.results["a"] = ARRIVED
    for used in (broken, source):
        waiter = shared_waiter(functools.partial(Waiter, used, interval=LONG))
        await waiter.wait("a", deadline=time.time() + LONG)
    await close_waiters()

    assert source.closed == 1


async def test_registry_equal_sources_share_a_waiter(source: FakeSource) -> None:
    first = shared_waiter(Factory("inbox", source))
    wait = start_wait(first, "a")
    await source.polled.wait()

    assert shared_waiter(Factory("inbox", source)) is first
    assert shared_waiter(Factory("bucket", source)) is not first
    wait.cancel()
    await close_waiters()
    assert source.closed == 1


async def test_registry_idle_waiter_is_forgotten(source: FakeSource) -> None:
    make = functools.partial(Waiter, source, interval=SOON)
    first = shared_waiter(make)
    await first.wait("any", deadline=0.0)
    while not source.closed:  # it closes at the end of its interval
        await asyncio.sleep(SOON)
    shared_waiter(functools.partial(Waiter, source, interval=LONG))

    assert shared_waiter(make) is not first
    await close_waiters()


async def test_registry_two_sources_have_two_waiters(source: FakeSource) -> None:
    made: list[Waiter] = []
    # Many triggers start at once: all are created before the first one waits.
    waits = [
        asyncio.ensure_future(
            shared_waiter(Factory(name, source, made)).wait(
                "a", deadline=time.time() + LONG
            )
        )
        for _ in range(100)
        for name in ("inbox", "bucket")
    ]
    await source.next_poll()
    assert len(made) == 2
    for wait in waits:
        wait.cancel()
    await asyncio.gather(*waits, return_exceptions=True)
    await close_waiters()
