"""What a waiter does when a poll or the stream of hints fails or does not answer."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from runqy_provider.errors import SinkUnavailable
from runqy_provider.python_compat import timeout
from runqy_provider.waiters.waiter import Timing, Waiter
from tests.unit.waiter_source import ARRIVED, LONG, SOON, StuckSource, start_wait

if TYPE_CHECKING:
    from tests.unit.waiter_source import FakeSource


async def test_waiter_source_unavailable_is_polled_again(
    waiter: Waiter, source: FakeSource, caplog: pytest.LogCaptureFixture
) -> None:
    source.error = SinkUnavailable("Redis is unavailable")
    wait = start_wait(waiter, "a")
    await source.next_poll()
    await source.next_poll()
    assert waiter.last_error == "SinkUnavailable: Redis is unavailable"
    source.results["a"] = ARRIVED
    source.error = None

    assert await wait == ARRIVED
    assert waiter.last_error is None
    assert caplog.text.count("Polling failed") == 1


async def test_waiter_source_unavailable_deadline_still_ends_wait(
    waiter: Waiter, source: FakeSource
) -> None:
    source.error = SinkUnavailable("unavailable")

    assert await waiter.wait("a", deadline=time.time() + SOON) is None


async def test_waiter_unexpected_error_once_keeps_waiting(
    waiter: Waiter, source: FakeSource
) -> None:
    """An Airflow connection, for example, may be missing for a moment."""
    source.error = LookupError("not found")
    wait = start_wait(waiter, "a")
    await source.polled.wait()
    await source.next_poll()
    assert "not found" in str(waiter.last_error)
    source.error, source.results["a"] = None, ARRIVED

    assert await wait == ARRIVED


async def test_waiter_unexpected_error_lasting_fails_waits(
    source: FakeSource,
) -> None:
    waiter = Waiter(source, interval=LONG, timing=Timing(unexpected=0.1))
    source.error = ZeroDivisionError("a bug")
    with pytest.raises(ZeroDivisionError):
        await waiter.wait("a", deadline=time.time() + LONG)

    source.error, source.results["b"] = None, ARRIVED
    assert await waiter.wait("b", deadline=time.time() + LONG) == ARRIVED
    await waiter.aclose()


async def test_waiter_poll_cancelled_by_library_is_repeated(
    waiter: Waiter, source: FakeSource
) -> None:
    source.error = asyncio.CancelledError()
    wait = start_wait(waiter, "a")
    await source.polled.wait()
    await source.next_poll()
    assert "the poll was cancelled" in str(waiter.last_error)
    source.error, source.results["a"] = None, ARRIVED

    assert await wait == ARRIVED


async def test_waiter_poll_unanswered_deadline_still_ends_wait() -> None:
    source = StuckSource()
    waiter = Waiter(source, interval=SOON)
    known = start_wait(waiter, "known", seconds=1.0)
    await source.polled.wait()
    stuck = start_wait(waiter, "stuck", seconds=LONG)
    await source.next_poll()

    async with timeout(10):
        assert await known is None
    assert not stuck.done()
    source.results["stuck"] = ARRIVED
    source.released.set()
    async with timeout(10):
        assert await stuck == ARRIVED
    await waiter.aclose()


async def test_waiter_poll_unanswered_is_reported_after_grace() -> None:
    source = StuckSource()
    waiter = Waiter(source, interval=LONG, timing=Timing(poll_grace=0.3))

    async with timeout(10):
        assert await waiter.wait("stuck", deadline=0.0) is None
    assert "has not been answered yet" in str(waiter.last_error)
    await waiter.aclose()
    assert source.cancelled == 1


async def test_waiter_poll_unanswered_keeps_why_the_one_before_failed() -> None:
    source = StuckSource()
    source.error = SinkUnavailable("Redis is unavailable")
    timing = Timing(poll_grace=0.3, first_delay=SOON)
    waiter = Waiter(source, interval=LONG, timing=timing)
    long_wait = start_wait(waiter, "stuck")
    await source.next_poll()
    source.error = None
    await source.next_poll()

    async with timeout(10):
        assert await waiter.wait("due", deadline=0.0) is None
    assert "has not been answered yet" in str(waiter.last_error)
    assert "Redis is unavailable" in str(waiter.last_error)
    long_wait.cancel()
    await waiter.aclose()


async def test_waiter_hints_broken_are_reopened_and_all_polled(
    waiter: Waiter, source: FakeSource
) -> None:
    wait = start_wait(waiter, "a")
    await source.polled.wait()
    source.results["a"] = ARRIVED
    source.hint_queue.put_nowait(SinkUnavailable("connection lost"))

    assert await wait == ARRIVED
    assert source.listeners == 2


async def test_waiter_hints_unexpected_error_are_reopened(
    waiter: Waiter, source: FakeSource
) -> None:
    wait = start_wait(waiter, "a")
    await source.polled.wait()
    source.results["a"] = ARRIVED
    source.hint_queue.put_nowait(RuntimeError("an error of a client library"))

    assert await wait == ARRIVED
    assert source.listeners == 2


async def test_waiter_hints_cancelled_by_library_are_reopened(
    waiter: Waiter, source: FakeSource
) -> None:
    """The library aiormq cancels its own tasks if a broker stops answering."""
    wait = start_wait(waiter, "a")
    await source.polled.wait()
    source.results["a"] = ARRIVED
    source.hint_queue.put_nowait(asyncio.CancelledError())

    assert await wait == ARRIVED
    assert source.listeners == 2
