"""What a waiter needs of every source."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest

from runqy_provider.python_compat import timeout
from runqy_provider.waiters.race import poll_status, wait_any
from runqy_provider.waiters.waiter import close_waiters
from tests.contracts.backends import WITH_SERVER

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

    from runqy_provider.models import JobRef
    from runqy_provider.waiters.source import Arrival
    from tests.contracts.backends import Backend

WAITS = 100


@pytest.fixture
def polls(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many waits each poll was for."""
    counts: list[int] = []
    poll: Callable[[Any, Collection[str]], Awaitable[Any]] = backend.source.poll

    async def counted(self: Any, keys: Collection[str]) -> Any:
        counts.append(len(keys))
        return await poll(self, keys)

    monkeypatch.setattr(backend.source, "poll", counted)
    return counts


async def wait_until(condition: Callable[[], bool]) -> None:
    async with timeout(30):
        while not condition():
            await asyncio.sleep(0.02)


def wait(
    backend: Backend, job: JobRef, seconds: float = 40
) -> asyncio.Task[Arrival | None]:
    deadline = time.time() + seconds
    return asyncio.create_task(wait_any([backend.target(job)], deadline=deadline))


async def test_source_finds_delivery_from_before_the_wait(backend: Backend) -> None:
    job = await asyncio.to_thread(backend.job)
    await asyncio.to_thread(backend.deliver, job)

    arrival = await wait(backend, job)
    await close_waiters()

    assert arrival is not None


async def test_source_finds_delivery_during_the_wait(
    backend: Backend, polls: list[int]
) -> None:
    job = await asyncio.to_thread(backend.job)
    waiting = wait(backend, job)
    await wait_until(lambda: bool(polls))

    await asyncio.to_thread(backend.deliver, job)
    arrival = await waiting
    await close_waiters()

    assert arrival is not None


async def test_source_polls_once_for_a_hundred_waits(
    backend: Backend, polls: list[int]
) -> None:
    jobs = [await asyncio.to_thread(backend.job, n) for n in range(WAITS)]
    waits = [wait(backend, job) for job in jobs]
    await wait_until(lambda: WAITS in polls)
    before = len(polls)

    await asyncio.to_thread(backend.deliver, jobs[7])
    arrival = await waits[7]
    for waiting in waits:
        waiting.cancel()
    await asyncio.gather(*waits, return_exceptions=True)
    await close_waiters()

    assert arrival is not None
    # The first poll may come while waits are still being added.
    assert before <= 6, polls
    assert sum(polls) <= WAITS * len(polls)


async def test_source_is_usable_again_after_it_was_closed(backend: Backend) -> None:
    jobs = [await asyncio.to_thread(backend.job, n) for n in range(2)]
    for job in jobs:
        await asyncio.to_thread(backend.deliver, job)
    target = backend.target(jobs[0])
    waiter = target.waiter_factory()

    for job in jobs:
        key = backend.target(job).key
        assert await waiter.wait(key, deadline=time.time() + 30) is not None
        await waiter.aclose()


@pytest.mark.parametrize("backend", WITH_SERVER, indirect=True)
@pytest.mark.usefixtures("make_unavailable")
async def test_source_unavailable_ends_no_wait_before_its_deadline(
    backend: Backend,
) -> None:
    target = backend.target(backend.job())
    began = time.time()

    arrival = await wait_any([target], deadline=began + 1.5)
    status = poll_status([target])
    await close_waiters()

    assert arrival is None
    assert time.time() - began >= 1.4
    assert status.unreadable_because
