"""The queue of deadlines: it stays as small as the number of waits."""

from __future__ import annotations

from runqy_provider.waiters.wait import DeadlineQueue, LivenessMonitor, Wait


def wait_until(deadline: float) -> Wait:
    liveness = LivenessMonitor()
    return Wait("key", deadline, liveness, lambda *_: None, was_polled=True)


def test_deadline_queue_drops_ended_waits() -> None:
    queue = DeadlineQueue(poll_grace=20.0)
    for number in range(500):
        wait = wait_until(1e12 + number)
        queue.set([wait])
        wait.end()

    assert len(queue) < 100


def test_deadline_queue_unchanged_wait_is_entered_once() -> None:
    queue, wait = DeadlineQueue(poll_grace=20.0), wait_until(1e12)
    for _ in range(50):
        queue.set([wait])

    assert len(queue) == 1


def test_deadline_queue_yields_due_waits_in_order() -> None:
    queue = DeadlineQueue(poll_grace=20.0)
    waits = [wait_until(deadline) for deadline in (3.0, 1.0, 1e12, 2.0)]
    queue.set(waits)

    assert [wait.deadline for wait in queue.due()] == [1.0, 2.0, 3.0]
    assert queue.first == 1e12


def test_deadline_queue_wait_moved_later_is_not_due() -> None:
    queue, wait = DeadlineQueue(poll_grace=20.0), wait_until(1.0)
    queue.set([wait])
    wait.deadline = 1e12

    assert list(queue.due()) == []
    assert queue.first == 1e12
