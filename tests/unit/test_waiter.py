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


async def test_waiter_arrival_before_the_wait_ends_it(
    waiter: Waiter, source: Source
) -> None:
    source.state["a"] = ARRIVED

    assert await waiter.wait("a", deadline=time.time() + LONG) == ARRIVED


async def test_waiter_hint_ends_its_wait(waiter: Waiter, source: Source) -> None:
    first, second = start(waiter, "a"), start(waiter, "b")
    await source.looked.wait()
    source.state.update(a=ARRIVED, b=ARRIVED)
    source.queue.put_nowait("a")

    assert await first == ARRIVED
    assert not second.done()
    second.cancel()


async def test_waiter_hint_for_unknown_key_causes_no_poll(
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


async def test_waiter_hint_lost_arrival_is_found_by_interval(source: Source) -> None:
    waiter = Waiter(source, interval=SOON)
    wait = start(waiter, "a")
    await source.looked.wait()
    source.state["a"] = ARRIVED

    assert await wait == ARRIVED
    await waiter.aclose()


async def test_waiter_many_waits_share_one_poll(waiter: Waiter, source: Source) -> None:
    keys = {f"a{n}" for n in range(100)}
    waits = [start(waiter, key) for key in keys]
    await source.looked.wait()
    source.state.update(dict.fromkeys(keys, ARRIVED))
    source.queue.put_nowait(None)
    await asyncio.gather(*waits)

    assert keys in source.looks
    assert len(source.looks) <= 4
    assert source.listeners == 1


async def test_waiter_two_waits_for_one_key_both_end(
    waiter: Waiter, source: Source
) -> None:
    waits = [start(waiter, "a"), start(waiter, "a")]
    await source.looked.wait()
    source.state["a"] = ARRIVED
    source.queue.put_nowait("a")

    assert await asyncio.gather(*waits) == [ARRIVED, ARRIVED]


async def test_waiter_deadline_passed_polls_once(
    waiter: Waiter, source: Source
) -> None:
    assert await waiter.wait("a", deadline=0.0) is None
    assert source.looks[0] == {"a"}

    source.state["b"] = ARRIVED
    assert await waiter.wait("b", deadline=0.0) == ARRIVED


async def test_waiter_source_unavailable_is_polled_again(
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


async def test_waiter_source_unavailable_deadline_still_ends_wait(
    waiter: Waiter, source: Source
) -> None:
    source.trouble = SinkUnavailable("away")

    assert await waiter.wait("a", deadline=time.time() + SOON) is None


async def test_waiter_error_result_ends_only_its_wait(
    waiter: Waiter, source: Source
) -> None:
    source.state["a"] = NotThere("no such bucket")
    failing, other = start(waiter, "a"), start(waiter, "b")

    with pytest.raises(NotThere, match="no such bucket"):
        await failing
    source.state["b"] = ARRIVED
    source.queue.put_nowait("b")
    assert await other == ARRIVED


async def test_waiter_hints_broken_are_reopened_and_all_polled(
    waiter: Waiter, source: Source
) -> None:
    wait = start(waiter, "a")
    await source.looked.wait()
    source.state["a"] = ARRIVED
    source.queue.put_nowait(SinkUnavailable("connection lost"))

    assert await wait == ARRIVED
    assert source.listeners == 2


async def test_waiter_unexpected_error_once_keeps_waiting(
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


async def test_waiter_unexpected_error_lasting_fails_waits(
    waiter: Waiter, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runqy_provider.waiters.waiter.UNEXPECTED_LIMIT", 0.1)
    source.trouble = ZeroDivisionError("a bug")
    with pytest.raises(ZeroDivisionError):
        await waiter.wait("a", deadline=time.time() + LONG)

    source.trouble, source.state["b"] = None, ARRIVED
    assert await waiter.wait("b", deadline=time.time() + LONG) == ARRIVED


async def test_waiter_hints_unexpected_error_are_reopened(
    waiter: Waiter, source: Source
) -> None:
    wait = start(waiter, "a")
    await source.looked.wait()
    source.state["a"] = ARRIVED
    source.queue.put_nowait(RuntimeError("of a client library"))

    assert await wait == ARRIVED
    assert source.listeners == 2


async def test_registry_waiter_close_error_closes_all_others(
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


async def test_waiter_without_waits_closes_source_and_restarts(
    source: Source,
) -> None:
    waiter = Waiter(source, interval=SOON)
    source.state.update(a=ARRIVED, b=ARRIVED)
    await waiter.wait("a", deadline=time.time() + LONG)
    while not source.closed:
        await asyncio.sleep(0.01)

    assert await waiter.wait("b", deadline=time.time() + LONG) == ARRIVED
    await waiter.aclose()


async def test_waiter_hints_swallow_cancellation_are_cancelled_again(
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


async def test_waiter_poll_swallows_cancellation_waiter_closes(
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


async def test_waiter_closed_twice_at_once_closes_source(
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


async def test_waiter_wait_added_while_closing_is_served(
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


async def test_waiter_ended_waits_leave_nothing_behind(
    waiter: Waiter, source: Source
) -> None:
    for n in range(500):
        source.state[f"a{n}"] = ARRIVED
        await waiter.wait(f"a{n}", deadline=time.time() + LONG)
    cancelled = start(waiter, "never")
    await source.next_look()
    cancelled.cancel()
    await asyncio.gather(cancelled, return_exceptions=True)

    assert waiter._waits == {}
    assert len(waiter._deadlines) < 100


async def test_waiter_polls_do_not_add_deadlines(source: Source) -> None:
    waiter = Waiter(source, interval=0.001)
    wait = start(waiter, "a")
    while len(source.looks) < 50:
        await source.next_look()

    assert len(waiter._deadlines) == 1
    wait.cancel()
    await waiter.aclose()


async def test_registry_equal_sources_share_a_waiter(source: Source) -> None:
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


async def test_registry_idle_waiter_is_forgotten(source: Source) -> None:
    first = shared_waiter("a", lambda: Waiter(source, interval=SOON))
    await first.wait("somewhere", deadline=0.0)
    while not source.closed:  # it closes down at its next sweep
        await asyncio.sleep(SOON)
    shared_waiter("b", lambda: Waiter(source, interval=LONG))

    assert shared_waiter("a", lambda: Waiter(source, interval=LONG)) is not first
    await close_waiters()


async def test_waiter_old_waits_are_polled_less_often(
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


async def test_registry_two_sources_have_two_waiters(source: Source) -> None:
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


async def test_waiter_poll_unanswered_deadline_still_ends_wait() -> None:
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


async def test_waiter_poll_unanswered_is_reported_after_grace(
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


async def test_waiter_wait_cancelled_during_poll_is_dropped(source: Source) -> None:
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


async def test_waiter_close_lets_running_poll_end() -> None:
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


async def test_waiter_hints_cancelled_by_library_are_reopened(
    waiter: Waiter, source: Source
) -> None:
    """As aiormq does where a broker falls silent: by a cancellation of its own."""
    wait = start(waiter, "a")
    await source.looked.wait()
    source.state["a"] = ARRIVED
    source.queue.put_nowait(asyncio.CancelledError())

    assert await wait == ARRIVED
    assert source.listeners == 2


async def test_waiter_poll_cancelled_by_library_is_repeated(
    waiter: Waiter, source: Source
) -> None:
    source.trouble = asyncio.CancelledError()
    wait = start(waiter, "a")
    await source.looked.wait()
    await source.next_look()
    assert "the poll was cancelled" in str(waiter.last_error)
    source.trouble, source.state["a"] = None, ARRIVED

    assert await wait == ARRIVED
