"""Many waits in one task: what ends each of them, and all."""

from __future__ import annotations

import asyncio
import functools
import time
from typing import TYPE_CHECKING

import pytest

from runqy_provider.errors import JobVanished, NoAccess, SinkUnavailable
from runqy_provider.python_compat import timeout
from runqy_provider.waiters.many import EndedWait, wait_many
from runqy_provider.waiters.race import NumberedWait
from runqy_provider.waiters.wait import LivenessMonitor
from runqy_provider.waiters.waiter import Timing, Waiter, WaitTarget, close_waiters
from tests.unit.waiter_source import ARRIVED, LONG, SOON, FakeSource

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class Caller:
    """Waits at one source, with one monitor, and keeps what has ended."""

    def __init__(self, enough: int = 10_000, timing: Timing | None = None) -> None:
        self.timing = timing or Timing()
        self.source, self.monitor = FakeSource(), FakeSource()
        self.ended: list[EndedWait] = []
        self.enough = enough

    def numbered(self, indexes: Iterable[int]) -> Iterator[NumberedWait]:
        source = functools.partial(Waiter, self.source, SOON, timing=self.timing)
        monitor = functools.partial(Waiter, self.monitor, SOON, timing=self.timing)
        for index in indexes:
            yield NumberedWait(
                index,
                [WaitTarget(source, f"d{index}")],
                WaitTarget(monitor, f"j{index}"),
            )

    def on_end(self, ended: EndedWait) -> bool:
        self.ended.append(ended)
        return len(self.ended) < self.enough

    async def wait(self, count: int, seconds: float = LONG) -> None:
        try:
            await wait_many(
                self.numbered(range(count)),
                self.on_end,
                deadline=time.time() + seconds,
                liveness=LivenessMonitor(),
            )
        finally:
            await close_waiters()

    @property
    def indexes(self) -> list[int]:
        return sorted(ended.index for ended in self.ended)


async def test_wait_many_ends_when_all_have_ended() -> None:
    caller = Caller()
    caller.source.results = {f"d{n}": ARRIVED for n in range(500)}

    await caller.wait(500)

    assert caller.indexes == list(range(500))
    assert all(ended.arrival == ARRIVED for ended in caller.ended)


async def test_wait_many_ends_when_the_caller_has_enough() -> None:
    caller = Caller(enough=3)
    caller.source.results = {f"d{n}": ARRIVED for n in range(5)}

    await caller.wait(10)

    assert len(caller.ended) == 3


async def test_wait_many_at_the_deadline_ends_without_a_report() -> None:
    caller = Caller()
    caller.source.results = {"d1": ARRIVED}

    await caller.wait(3, seconds=0.3)

    assert caller.indexes == [1]


async def test_wait_many_of_nothing_ends_at_once() -> None:
    await Caller().wait(0)


async def test_wait_many_job_that_is_gone_is_reported_with_its_error() -> None:
    caller = Caller()
    gone = JobVanished("the job is gone")
    caller.source.results = {"d0": ARRIVED}
    caller.monitor.results = {"j1": gone}

    await caller.wait(2)

    assert caller.indexes == [0, 1]
    assert [ended.error for ended in caller.ended if ended.index == 1] == [gone]


async def test_wait_many_job_gone_while_its_source_is_unavailable_waits_on() -> None:
    caller = Caller()
    caller.source.error = SinkUnavailable("away")
    caller.monitor.results = {"j0": JobVanished("the job is gone")}

    waiting = asyncio.create_task(caller.wait(1))
    await caller.source.next_poll()
    await caller.source.next_poll()
    assert not caller.ended
    caller.source.error = None
    caller.source.results = {"d0": ARRIVED}
    async with timeout(5):
        await waiting

    assert [ended.arrival for ended in caller.ended] == [ARRIVED]


async def test_wait_many_job_gone_while_its_source_is_unavailable_fails_in_time() -> (
    None
):
    caller = Caller()
    caller.source.error = SinkUnavailable("away")
    caller.monitor.results = {"j0": JobVanished("the job is gone")}

    await caller.wait(1, seconds=0.5)

    assert [type(ended.error) for ended in caller.ended] == [JobVanished]


async def test_wait_many_fault_in_the_program_is_raised() -> None:
    caller = Caller(timing=Timing(unexpected=0.0))
    caller.source.error = KeyError("a bug")

    with pytest.raises(KeyError):
        await caller.wait(3)


async def test_wait_many_source_that_denies_access_ends_all_and_no_job() -> None:
    caller = Caller()
    denied = NoAccess("access denied")
    caller.source.results = {"d0": denied, "d1": denied}

    with pytest.raises(NoAccess):
        await caller.wait(5)

    assert not caller.ended


async def test_wait_many_that_is_cancelled_leaves_no_wait() -> None:
    caller = Caller()
    waiting = asyncio.create_task(caller.wait(200))
    await caller.source.next_poll()

    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting

    assert caller.source.closed == 1
