"""The waiter with a source of the test's own: what it looks at, and when."""

from __future__ import annotations

import asyncio
import functools
import time
from typing import TYPE_CHECKING

import pytest

from runqy_provider.errors import NotThere, SinkUnavailable
from runqy_provider.waiters.registry import close_waiters, shared_waiter
from runqy_provider.waiters.source import Arrival
from runqy_provider.waiters.waiter import CLOSE_TIMEOUT, Waiter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection

    from runqy_provider.waiters.source import PollResult

ARRIVED = Arrival("completed", "somewhere", 1.0)
SOON = 0.05
LONG = 60.0


class Source:
    """State to look at, hints to give, and trouble to make."""

    def __init__(self) -> None:
        self.state: dict[str, PollResult] = {}
        self.looks: list[set[str]] = []
        self.trouble: BaseException | None = None
        self.queue: asyncio.Queue[str | BaseException | None] = asyncio.Queue()
        self.listeners = 0
        self.closed = 0
        self.looked = asyncio.Event()

    async def poll(self, keys: Collection[str]) -> dict[str, PollResult]:
        self.looks.append(set(keys))
        self.looked.set()
        if self.trouble is not None:
            raise self.trouble
        return {key: self.state[key] for key in keys if key in self.state}

    async def hints(self) -> AsyncIterator[str | None]:
        self.listeners += 1
        if self.listeners > 1:
            yield None  # something may have been missed
        while True:
            hint = await self.queue.get()
            if isinstance(hint, BaseException):
                raise hint
            yield hint

    async def aclose(self) -> None:
        self.closed += 1

    async def next_look(self) -> None:
        self.looked.clear()
        await self.looked.wait()


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
async def waiter(source: Source) -> AsyncIterator[Waiter]:
    waiter = Waiter(source, interval=LONG)
    yield waiter
    await waiter.aclose()


def start(
    waiter: Waiter, key: str, seconds: float = LONG
) -> asyncio.Task[Arrival | None]:
    return asyncio.create_task(waiter.wait(key, deadline=time.time() + seconds))


async def test_what_came_before_the_wait_wakes_it(
    waiter: Waiter, source: Source
) -> None:
    source.state["a"] = ARRIVED

    assert await waiter.wait("a", deadline=time.time() + LONG) == ARRIVED


async def test_a_hint_wakes_the_wait_it_is_for(waiter: Waiter, source: Source) -> None:
    first, second = start(waiter, "a"), start(waiter, "b")
    await source.looked.wait()
    source.state.update(a=ARRIVED, b=ARRIVED)
    source.queue.put_nowait("a")

    assert await first == ARRIVED
    assert not second.done()
    second.cancel()


async def test_a_hint_for_somebody_else_costs_no_look(
    waiter: Waiter, source: Source
) -> None:
    wait = start(waiter, "a")
    await source.looked.wait()
    looks = len(source.looks)
    source.queue.put_nowait("not ours")
    source.state["a"] = ARRIVED
    source.queue.put_nowait("a")
    await wait

    assert {"not ours"} not in source.looks
    assert len(source.looks) <= looks + 2


async def test_a_lost_hint_is_made_good_by_a_sweep(source: Source) -> None:
    waiter = Waiter(source, interval=SOON)
    wait = start(waiter, "a")
    await source.looked.wait()
    source.state["a"] = ARRIVED

    assert await wait == ARRIVED
    await waiter.aclose()


async def test_many_waits_are_looked_at_at_once(waiter: Waiter, source: Source) -> None:
    keys = {f"a{n}" for n in range(100)}
    waits = [start(waiter, key) for key in keys]
    await source.looked.wait()
    source.state.update(dict.fromkeys(keys, ARRIVED))
    source.queue.put_nowait(None)
    await asyncio.gather(*waits)

    assert keys in source.looks
    assert len(source.looks) <= 4
    assert source.listeners == 1


async def test_two_waits_for_the_same_both_end(waiter: Waiter, source: Source) -> None:
    waits = [start(waiter, "a"), start(waiter, "a")]
    await source.looked.wait()
    source.state["a"] = ARRIVED
    source.queue.put_nowait("a")

    assert await asyncio.gather(*waits) == [ARRIVED, ARRIVED]


async def test_a_deadline_ends_a_wait_after_at_least_one_look(
    waiter: Waiter, source: Source
) -> None:
    assert await waiter.wait("a", deadline=0.0) is None
    assert source.looks[0] == {"a"}

    source.state["b"] = ARRIVED
    assert await waiter.wait("b", deadline=0.0) == ARRIVED


async def test_a_source_that_is_away_is_tried_again(
    waiter: Waiter, source: Source, caplog: pytest.LogCaptureFixture
) -> None:
    source.trouble = SinkUnavailable("Redis is away")
    wait = start(waiter, "a")
    await source.next_look()
    await source.next_look()
    assert waiter.last_error == "SinkUnavailable: Redis is away"
    source.state["a"] = ARRIVED
    source.trouble = None

    assert await wait == ARRIVED
    assert waiter.last_error is None
    assert caplog.text.count("Polling failed") == 1


async def test_a_source_that_is_away_does_not_hold_up_a_deadline(
    waiter: Waiter, source: Source
) -> None:
    source.trouble = SinkUnavailable("away")

    assert await waiter.wait("a", deadline=time.time() + SOON) is None


async def test_an_error_ends_the_waits_it_is_about_and_no_others(
    waiter: Waiter, source: Source
) -> None:
    source.state["a"] = NotThere("no such bucket")
    failing, other = start(waiter, "a"), start(waiter, "b")

    with pytest.raises(NotThere, match="no such bucket"):
        await failing
    source.state["b"] = ARRIVED
    source.queue.put_nowait("b")
    assert await other == ARRIVED


async def test_a_broken_stream_of_hints_is_opened_again_and_all_is_looked_at(
    waiter: Waiter, source: Source
) -> None:
    wait = start(waiter, "a")
    await source.looked.wait()
    source.state["a"] = ARRIVED
    source.queue.put_nowait(SinkUnavailable("connection lost"))

    assert await wait == ARRIVED
    assert source.listeners == 2


async def test_a_passing_fault_of_the_source_ends_no_wait(
    waiter: Waiter, source: Source
) -> None:
    """As where a connection cannot be fetched for a moment."""
    source.trouble = LookupError("not found")
    wait = start(waiter, "a")
    await source.looked.wait()
    await source.next_look()
    assert "not found" in str(waiter.last_error)
    source.trouble, source.state["a"] = None, ARRIVED

    assert await wait == ARRIVED


async def test_a_fault_that_stays_fails_the_waits_and_the_next_wait_works(
    waiter: Waiter, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runqy_provider.waiters.waiter.UNEXPECTED_LIMIT", 0.1)
    source.trouble = ZeroDivisionError("a bug")
    with pytest.raises(ZeroDivisionError):
        await waiter.wait("a", deadline=time.time() + LONG)

    source.trouble, source.state["b"] = None, ARRIVED
    assert await waiter.wait("b", deadline=time.time() + LONG) == ARRIVED


async def test_hints_that_fail_unexpectedly_are_asked_for_again(
    waiter: Waiter, source: Source
) -> None:
    wait = start(waiter, "a")
    await source.looked.wait()
    source.state["a"] = ARRIVED
    source.queue.put_nowait(RuntimeError("of a client library"))

    assert await wait == ARRIVED
    assert source.listeners == 2


async def test_one_waiter_that_fails_to_close_keeps_no_other_open(
    source: Source,
) -> None:
    class Broken(Source):
        async def aclose(self) -> None:
            raise LookupError("at the close")

    broken = Broken()
    broken.state["a"] = source.state["a"] = ARRIVED
    for place, one in (("broken", broken), ("whole", source)):
        waiter = shared_waiter(place, functools.partial(Waiter, one, interval=LONG))
        await waiter.wait("a", deadline=time.time() + LONG)
    await close_waiters()

    assert source.closed == 1


async def test_a_waiter_without_waits_closes_its_source_and_can_start_again(
    source: Source,
) -> None:
    waiter = Waiter(source, interval=SOON)
    source.state.update(a=ARRIVED, b=ARRIVED)
    await waiter.wait("a", deadline=time.time() + LONG)
    while not source.closed:
        await asyncio.sleep(0.01)

    assert await waiter.wait("b", deadline=time.time() + LONG) == ARRIVED
    await waiter.aclose()


async def test_a_source_that_swallows_a_cancellation_is_told_again(
    source: Source,
) -> None:
    """As redis-py does while it connects."""

    class Stubborn(Source):
        async def hints(self) -> AsyncIterator[str | None]:
            try:
                await asyncio.sleep(LONG)
            except asyncio.CancelledError:
                self.listeners += 1
            async for hint in super().hints():
                yield hint

    stubborn = Stubborn()
    waiter = Waiter(stubborn, interval=LONG)
    waiting = start(waiter, "a")
    await stubborn.next_look()
    began = time.monotonic()
    await waiter.aclose()

    assert time.monotonic() - began < CLOSE_TIMEOUT / 3
    assert (stubborn.listeners, stubborn.closed) == (2, 1)
    waiting.cancel()


async def test_a_look_that_swallows_a_cancellation_does_not_keep_the_waiter_alive(
    source: Source,
) -> None:
    """As redis-py does while it connects."""

    class Stubborn(Source):
        async def poll(self, keys: Collection[str]) -> dict[str, PollResult]:
            answers = await super().poll(keys)
            try:
                await asyncio.sleep(LONG)
            except asyncio.CancelledError:
                return answers
            raise AssertionError

    stubborn = Stubborn()
    waiter = Waiter(stubborn, interval=LONG)
    waiting = start(waiter, "a")
    await stubborn.next_look()
    async with asyncio.timeout(CLOSE_TIMEOUT):
        await waiter.aclose()

    assert stubborn.closed == 1
    waiting.cancel()


async def test_a_waiter_that_is_closed_while_it_closes_by_itself_leaves_nothing_open(
    source: Source,
) -> None:
    class Slow(Source):
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
    await stopping.wait()  # for want of waits
    await waiter.aclose()

    assert slow.closed == 1


async def test_a_wait_that_comes_while_the_waiter_closes_is_served(
    source: Source,
) -> None:
    waiter = Waiter(source, interval=SOON)
    source.state.update(a=ARRIVED, b=ARRIVED)
    waits: list[asyncio.Task[Arrival | None]] = []

    async def close_slowly() -> None:
        if not waits:
            waits.append(start(waiter, "b"))
            await asyncio.sleep(0)
        source.closed += 1

    source.aclose = close_slowly  # type: ignore[method-assign]
    await waiter.wait("a", deadline=time.time() + LONG)
    while not waits:
        await asyncio.sleep(0.01)

    assert await waits[0] == ARRIVED
    await waiter.aclose()


async def test_ended_waits_leave_nothing_behind(waiter: Waiter, source: Source) -> None:
    for n in range(500):
        source.state[f"a{n}"] = ARRIVED
        await waiter.wait(f"a{n}", deadline=time.time() + LONG)
    cancelled = start(waiter, "never")
    await source.next_look()
    cancelled.cancel()
    await asyncio.gather(cancelled, return_exceptions=True)

    assert waiter._waits == {}
    assert len(waiter._deadlines) < 100


async def test_sweeps_do_not_pile_up_timers(source: Source) -> None:
    waiter = Waiter(source, interval=0.001)
    wait = start(waiter, "a")
    while len(source.looks) < 50:
        await source.next_look()

    assert len(waiter._deadlines) == 1
    wait.cancel()
    await waiter.aclose()


async def test_equal_places_share_a_waiter(source: Source) -> None:
    def make() -> Waiter:
        return Waiter(source, interval=LONG)

    first = shared_waiter(("inbox", 1), make)
    wait = start(first, "a")
    await source.looked.wait()

    assert shared_waiter(("inbox", 1), make) is first
    assert shared_waiter(("inbox", 2), make) is not first
    wait.cancel()
    await close_waiters()
    assert source.closed == 1


async def test_a_place_that_nobody_waits_at_is_forgotten(source: Source) -> None:
    first = shared_waiter("a", lambda: Waiter(source, interval=SOON))
    await first.wait("somewhere", deadline=0.0)
    while not source.closed:  # it closes down at its next sweep
        await asyncio.sleep(SOON)
    shared_waiter("b", lambda: Waiter(source, interval=LONG))

    assert shared_waiter("a", lambda: Waiter(source, interval=LONG)) is not first
    await close_waiters()


async def test_old_waits_are_looked_at_more_rarely_than_young_ones(
    source: Source,
) -> None:
    waiter = Waiter(source, interval=SOON, max_interval=LONG)
    old = start(waiter, "old")
    await source.next_look()
    waiter._waits["old"][0].since -= 1000  # next look due only after a long time
    young = start(waiter, "young")
    while sum("young" in poll for poll in source.looks) < 4:
        await source.next_look()
    assert sum("old" in poll for poll in source.looks) <= 2
    for task in (old, young):
        task.cancel()
    await asyncio.gather(old, young, return_exceptions=True)
    await waiter.aclose()


async def test_waits_at_two_places_share_two_waiters(source: Source) -> None:
    made: list[Waiter] = []

    def make() -> Waiter:
        made.append(Waiter(source, interval=LONG))
        return made[-1]

    # As when many triggers start at once: none of them has begun to wait yet.
    waits = [
        asyncio.ensure_future(
            shared_waiter(place, make).wait("a", deadline=time.time() + LONG)
        )
        for _ in range(100)
        for place in ("inbox", "bucket")
    ]
    await source.next_look()
    assert len(made) == 2
    for wait in waits:
        wait.cancel()
    await asyncio.gather(*waits, return_exceptions=True)
    await close_waiters()


class Stuck(Source):
    """A server that takes requests and never answers."""

    def __init__(self) -> None:
        super().__init__()
        self.stuck = asyncio.Event()
        self.cancelled = 0

    async def poll(self, keys: Collection[str]) -> dict[str, PollResult]:
        found = await super().poll(keys)
        if "stuck" in keys:
            try:
                await self.stuck.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        return found


async def test_a_look_without_an_answer_ends_no_wait_late() -> None:
    source = Stuck()
    waiter = Waiter(source, interval=SOON)
    known = start(waiter, "known", seconds=1.0)
    await source.looked.wait()
    stuck = start(waiter, "stuck", seconds=LONG)
    await source.next_look()

    async with asyncio.timeout(10):
        assert await known is None
    assert not stuck.done()
    source.state["stuck"] = ARRIVED
    source.stuck.set()
    async with asyncio.timeout(10):
        assert await stuck == ARRIVED
    await waiter.aclose()


async def test_a_wait_bears_with_its_one_look_and_then_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in ("deadlines", "waiter"):
        monkeypatch.setattr(f"runqy_provider.waiters.{module}.POLL_GRACE", 0.3)
    source = Stuck()
    waiter = Waiter(source, interval=LONG)

    async with asyncio.timeout(10):
        assert await waiter.wait("stuck", deadline=0.0) is None
    assert "has not been answered yet" in str(waiter.last_error)
    await waiter.aclose()
    assert source.cancelled == 1


async def test_a_wait_may_be_given_up_at_any_moment_of_a_look(source: Source) -> None:
    """From the tick in which it is asked for, to the one in which it is answered."""
    waiter = Waiter(source, interval=LONG)
    other = start(waiter, "other")
    await source.looked.wait()

    for ticks in range(12):
        given_up = start(waiter, f"given up after {ticks}")
        for _ in range(ticks):
            await asyncio.sleep(0)
        given_up.cancel()
        await asyncio.wait([given_up])

    source.state["other"] = ARRIVED
    source.queue.put_nowait("other")
    async with asyncio.timeout(10):
        assert await other == ARRIVED
    await waiter.aclose()


async def test_a_look_under_way_comes_to_its_end_as_the_waiter_closes() -> None:
    source = Stuck()
    waiter = Waiter(source, interval=LONG)
    wait = start(waiter, "stuck")
    await source.looked.wait()
    closing = asyncio.create_task(waiter.aclose())
    await asyncio.sleep(0)
    source.stuck.set()
    await closing

    assert (source.cancelled, source.closed) == (0, 1)
    wait.cancel()


async def test_hints_that_a_library_cuts_off_are_asked_for_again(
    waiter: Waiter, source: Source
) -> None:
    """As aiormq does where a broker falls silent: by a cancellation of its own."""
    wait = start(waiter, "a")
    await source.looked.wait()
    source.state["a"] = ARRIVED
    source.queue.put_nowait(asyncio.CancelledError())

    assert await wait == ARRIVED
    assert source.listeners == 2


async def test_a_look_that_a_library_cuts_off_is_made_again(
    waiter: Waiter, source: Source
) -> None:
    source.trouble = asyncio.CancelledError()
    wait = start(waiter, "a")
    await source.looked.wait()
    await source.next_look()
    assert "the poll was cancelled" in str(waiter.last_error)
    source.trouble, source.state["a"] = None, ARRIVED

    assert await wait == ARRIVED
