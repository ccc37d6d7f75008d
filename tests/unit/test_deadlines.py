"""The queue of deadlines: it stays as small as the number of waits."""

from __future__ import annotations

import asyncio

from runqy_provider.waiters.deadlines import DeadlineQueue, Wait
from runqy_provider.waiters.liveness import LivenessMonitor


def wait_until(deadline: float) -> Wait:
    done = asyncio.get_running_loop().create_future()
    return Wait("key", deadline, done, LivenessMonitor(), was_polled=True)


async def test_deadline_queue_drops_ended_waits() -> None:
    queue = DeadlineQueue()
    for number in range(500):
        wait = wait_until(1e12 + number)
        queue.set([wait])
        wait.done.set_result(None)

    assert len(queue) < 100


async def test_deadline_queue_unchanged_wait_is_entered_once() -> None:
    queue, wait = DeadlineQueue(), wait_until(1e12)
    for _ in range(50):
        queue.set([wait])

    assert len(queue) == 1


async def test_deadline_queue_yields_due_waits_in_order() -> None:
    queue = DeadlineQueue()
    waits = [wait_until(deadline) for deadline in (3.0, 1.0, 1e12, 2.0)]
    queue.set(waits)

    assert [wait.deadline for wait in queue.due()] == [1.0, 2.0, 3.0]
    assert queue.first == 1e12


async def test_deadline_queue_wait_moved_later_is_not_due() -> None:
    queue, wait = DeadlineQueue(), wait_until(1.0)
    queue.set([wait])
    wait.deadline = 1e12

    assert list(queue.due()) == []
    assert queue.first == 1e12
