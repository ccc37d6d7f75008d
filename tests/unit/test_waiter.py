"""When a waiter polls its source, and how its waits end."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from runqy_provider.errors import NotThere
from runqy_provider.python_compat import timeout
from runqy_provider.waiters.wait import LivenessMonitor, Wait
from runqy_provider.waiters.waiter import Waiter
from tests.unit.waiter_source import ARRIVED, LONG, SOON, start_wait

if TYPE_CHECKING:
    from tests.unit.waiter_source import FakeSource


async def test_waiter_arrival_before_the_wait_ends_it(
    waiter: Waiter, source: FakeSource
) -> None:
    source.results["a"] = ARRIVED

    assert await waiter.wait("a", deadline=time.time() + LONG) == ARRIVED


async def test_waiter_hint_ends_its_wait(waiter: Waiter, source: FakeSource) -> None:
    first, second = start_wait(waiter, "a"), start_wait(waiter, "b")
    await source.polled.wait()
    source.results.update(a=ARRIVED, b=ARRIVED)
    source.hint_queue.put_nowait("a")

    assert await first == ARRIVED
    assert not second.done()
    second.cancel()


async def test_waiter_hint_for_unknown_key_causes_no_poll(
    waiter: Waiter, source: FakeSource
) -> None:
    wait = start_wait(waiter, "a")
    await source.polled.wait()
    polls = len(source.polls)
    source.hint_queue.put_nowait("unknown")
    source.results["a"] = ARRIVED
    source.hint_queue.put_nowait("a")
    await wait

    assert {"unknown"} not in source.polls
    assert len(source.polls) <= polls + 2


async def test_waiter_hint_lost_arrival_is_found_by_interval(
    source: FakeSource,
) -> None:
    waiter = Waiter(source, interval=SOON)
    wait = start_wait(waiter, "a")
    await source.polled.wait()
    source.results["a"] = ARRIVED

    assert await wait == ARRIVED
    await waiter.aclose()


async def test_waiter_many_waits_share_one_poll(
    waiter: Waiter, source: FakeSource
) -> None:
    keys = {f"a{n}" for n in range(100)}
    waits = [start_wait(waiter, key) for key in keys]
    await source.polled.wait()
    source.results.update(dict.fromkeys(keys, ARRIVED))
    source.hint_queue.put_nowait(None)
    await asyncio.gather(*waits)

    assert keys in source.polls
    assert len(source.polls) <= 4
    assert source.listeners == 1


async def test_waiter_two_waits_for_one_key_both_end(
    waiter: Waiter, source: FakeSource
) -> None:
    waits = [start_wait(waiter, "a"), start_wait(waiter, "a")]
    await source.polled.wait()
    source.results["a"] = ARRIVED
    source.hint_queue.put_nowait("a")

    assert await asyncio.gather(*waits) == [ARRIVED, ARRIVED]


async def test_waiter_deadline_passed_polls_once(
    waiter: Waiter, source: FakeSource
) -> None:
    assert await waiter.wait("a", deadline=0.0) is None
    assert source.polls[0] == {"a"}

    source.results["b"] = ARRIVED
    assert await waiter.wait("b", deadline=0.0) == ARRIVED


async def test_waiter_error_result_ends_only_its_wait(
    waiter: Waiter, source: FakeSource
) -> None:
    source.results["a"] = NotThere("no such bucket")
    failing, other = start_wait(waiter, "a"), start_wait(waiter, "b")

    with pytest.raises(NotThere, match="no such bucket"):
        await failing
    source.results["b"] = ARRIVED
    source.hint_queue.put_nowait("b")
    assert await other == ARRIVED


async def test_waiter_without_waits_closes_source_and_restarts(
    source: FakeSource,
) -> None:
    waiter = Waiter(source, interval=SOON)
    source.results.update(a=ARRIVED, b=ARRIVED)
    await waiter.wait("a", deadline=time.time() + LONG)
    while not source.closed:
        await asyncio.sleep(0.01)

    assert await waiter.wait("b", deadline=time.time() + LONG) == ARRIVED
    await waiter.aclose()


async def test_waiter_all_waits_ended_or_cancelled_becomes_idle(
    source: FakeSource,
) -> None:
    waiter = Waiter(source, interval=SOON)
    cancelled = start_wait(waiter, "never")
    for n in range(100):
        source.results[f"a{n}"] = ARRIVED
        await waiter.wait(f"a{n}", deadline=time.time() + LONG)
    assert not waiter.is_idle

    cancelled.cancel()
    async with timeout(10):
        while not waiter.is_idle:
            await asyncio.sleep(0.01)
    assert source.closed == 1


async def test_waiter_old_waits_are_polled_less_often(
    source: FakeSource,
) -> None:
    waiter = Waiter(source, interval=SOON, max_interval=LONG)
    for key, since in (("old", time.time() - 1000), ("young", time.time())):
        deadline = time.time() + LONG
        waiter.add(Wait(key, deadline, LivenessMonitor(), lambda *_: None, since=since))
    while source.polls_of("young") < 4:
        await source.next_poll()

    assert source.polls_of("old") == 1
    await waiter.aclose()


async def test_waiter_wait_cancelled_during_poll_is_dropped(source: FakeSource) -> None:
    """It is cancelled at each event loop step from its start to its poll's end."""
    waiter = Waiter(source, interval=LONG)
    other = start_wait(waiter, "other")
    await source.polled.wait()

    for ticks in range(12):
        cancelled = start_wait(waiter, f"cancelled after {ticks}")
        for _ in range(ticks):
            await asyncio.sleep(0)
        cancelled.cancel()
        await asyncio.wait([cancelled])

    source.results["other"] = ARRIVED
    source.hint_queue.put_nowait("other")
    async with timeout(10):
        assert await other == ARRIVED
    await waiter.aclose()
