"""Waits at several sources and with a monitor: what ends them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from runqy_provider.errors import JobVanished, SinkUnavailable
from runqy_provider.waiters.race import wait_any
from runqy_provider.waiters.source import Arrival, StatusUpdate
from runqy_provider.waiters.wait import LivenessMonitor
from runqy_provider.waiters.waiter import Timing, Waiter, WaitTarget, close_waiters

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Mapping


class UnavailableSource:
    """A source that is unavailable at first; once available, it has the delivery."""

    def __init__(self) -> None:
        self.is_unavailable = True
        self.polls = 0

    async def poll(self, addresses: Collection[str]) -> Mapping[str, Any]:
        self.polls += 1
        if self.is_unavailable:
            raise SinkUnavailable("the broker is unavailable")
        return {text: Arrival("completed", "there", 1.0) for text in addresses}

    async def hints(self) -> AsyncIterator[str | None]:
        return
        yield

    async def aclose(self) -> None: ...


class Gone:
    """A monitor that reports at every poll that the job is gone."""

    async def poll(self, addresses: Collection[str]) -> Mapping[str, Any]:
        return {text: JobVanished("the job is gone.") for text in addresses}

    async def hints(self) -> AsyncIterator[str | None]:
        return
        yield

    async def aclose(self) -> None: ...


async def test_wait_any_job_gone_while_source_unavailable_keeps_waiting() -> None:
    source, updates = UnavailableSource(), []

    def on_change(update: StatusUpdate) -> None:
        updates.append(update.message)
        if "not every source" in update.message:
            source.is_unavailable = False

    target = WaitTarget(lambda: Waiter(source, 60.0), "d")
    monitor = WaitTarget(lambda: Waiter(Gone(), 60.0), "j")
    liveness = LivenessMonitor(on_change=on_change)
    arrival = await wait_any(
        [target], deadline=time.time() + 30, liveness=liveness, monitor=monitor
    )
    await close_waiters()

    assert arrival is not None
    assert any(
        "the job is gone. But not every source" in message for message in updates
    )


async def test_wait_any_delivery_just_before_job_vanished_is_taken() -> None:
    source = UnavailableSource()

    class Late(Gone):
        async def poll(self, addresses: Collection[str]) -> Mapping[str, Any]:
            source.is_unavailable = False
            return await super().poll(addresses)

    # The source's regular polls are too rare to find the delivery in time.
    target = WaitTarget(lambda: Waiter(source, 60.0), "d")
    monitor = WaitTarget(lambda: Waiter(Late(), 60.0), "j")
    arrival = await wait_any([target], deadline=time.time() + 30, monitor=monitor)
    await close_waiters()
    assert arrival is not None


async def test_wait_any_job_gone_while_source_unavailable_polls_with_backoff() -> None:
    source, timing = UnavailableSource(), Timing(first_delay=0.1)
    target = WaitTarget(lambda: Waiter(source, 60.0, timing=timing), "d")
    monitor = WaitTarget(lambda: Waiter(Gone(), 60.0), "j")
    with pytest.raises(JobVanished):
        await wait_any([target], deadline=time.time() + 1, monitor=monitor)
    await close_waiters()

    assert 2 <= source.polls < 40
