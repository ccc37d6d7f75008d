"""The order in which waits are polled: in batches, spread over the interval."""

from __future__ import annotations

import itertools

from runqy_provider.waiters.wait import MOST_EARLY, LivenessMonitor, PollSchedule, Wait

NOW = 1000.0
INTERVAL = 10.0


def wait_for(key: str, since: float = 0.0) -> Wait:
    return Wait(key, 1e12, LivenessMonitor(), lambda *_: None, since=since)


def schedule_of(count: int, batch: int | None = None) -> PollSchedule:
    """Return a schedule whose waits have been polled once."""
    schedule = PollSchedule(INTERVAL, batch=batch)
    schedule.restart(NOW)
    for n in range(count):
        schedule.add(wait_for(f"k{n}"))
    while schedule.take(NOW):
        pass
    return schedule


def test_poll_schedule_new_waits_are_polled_at_once_in_batches() -> None:
    schedule = PollSchedule(INTERVAL, batch=2)
    schedule.restart(NOW)
    for n in range(5):
        schedule.add(wait_for(f"k{n}"))

    assert schedule.next_poll == 0.0
    assert [schedule.take(NOW) for _ in range(4)] == [
        ["k0", "k1"],
        ["k2", "k3"],
        ["k4"],
        [],
    ]
    assert schedule.next_poll == NOW + INTERVAL


def test_poll_schedule_without_batch_poll_all_at_each_interval() -> None:
    schedule = schedule_of(1000)

    assert len(schedule.take(NOW + INTERVAL)) == 1000
    assert schedule.next_poll == NOW + 2 * INTERVAL


def test_poll_schedule_with_batch_are_spread_over_the_interval() -> None:
    schedule, polled, times = schedule_of(1000, batch=100), [], []
    now = NOW + INTERVAL
    while now < NOW + 2 * INTERVAL:
        polled.append(schedule.take(now))
        times.append(now)
        now = schedule.next_poll

    assert [len(keys) for keys in polled] == [100] * 10
    assert len(set().union(*polled)) == 1000
    assert {round(b - a, 6) for a, b in itertools.pairwise(times)} == {1.0}


def test_poll_schedule_hint_is_polled_before_its_turn_and_does_not_stop_turns() -> None:
    schedule = schedule_of(1000, batch=100)
    for second in range(10):
        schedule.poll_soon([f"k{n}" for n in range(200)])
        taken = schedule.take(NOW + INTERVAL + second)
        assert len(taken) >= 100
        schedule.take(NOW + INTERVAL + second)

    turn = schedule.take(NOW + 2 * INTERVAL)
    assert turn[0] == "k0", "all had their turn, though there were always hints"


def test_poll_schedule_ended_wait_has_no_turn() -> None:
    schedule = PollSchedule(INTERVAL, batch=2)
    schedule.restart(NOW)
    waits = [wait_for(f"k{n}") for n in range(3)]
    for wait in waits:
        schedule.add(wait)
    while schedule.take(NOW):
        pass
    waits[1].end()

    assert schedule.take(NOW + INTERVAL) == ["k0"]
    assert schedule.take(NOW + 2 * INTERVAL) == ["k2", "k0"]


def test_poll_schedule_failed_keys_come_at_next_turn_or_after_a_success() -> None:
    schedule = schedule_of(1000, batch=100)
    failed = schedule.take(NOW + INTERVAL)
    schedule.on_failure(failed, NOW + INTERVAL + 5)

    assert schedule.take(NOW + INTERVAL + 1) == []
    assert schedule.take(NOW + INTERVAL + 5) == failed
    schedule.on_failure(failed, NOW + INTERVAL + 20)
    schedule.poll_soon(["k999"])
    assert schedule.take(NOW + INTERVAL + 6) == ["k999"]
    schedule.on_success()
    assert schedule.take(NOW + INTERVAL + 6) == failed


def test_poll_schedule_old_wait_is_due_less_often() -> None:
    schedule = PollSchedule(0.5, max_interval=10.0)
    schedule.restart(NOW)
    young, old = wait_for("young", since=NOW - 1), wait_for("old", since=NOW - 1000)
    young.polled_at = old.polled_at = NOW
    schedule.add(young)
    schedule.add(old)
    schedule.take(NOW)

    assert schedule.take(NOW + 0.5) == ["young"]
    assert schedule.take(NOW + 10.5) == ["young", "old"]


def test_poll_schedule_new_waits_are_polled_early_beside_their_turns() -> None:
    schedule = PollSchedule(INTERVAL, early=(4.0, 9.0))
    schedule.restart(NOW)
    for key, since in (("a", NOW), ("b", NOW + 1), ("ended", NOW)):
        wait = wait_for(key, since=since)
        schedule.add(wait)
        if key == "ended":
            wait.end()
    assert schedule.take(NOW + 1) == ["a", "b", "ended"]

    polled = []
    while schedule.next_poll < NOW + INTERVAL:
        polled.append((schedule.next_poll - NOW, schedule.take(schedule.next_poll)))

    assert [(at, keys) for at, keys in polled if keys] == [
        (4.0, ["a"]),
        (5.0, ["b"]),
        (9.0, ["a"]),
    ]


def test_poll_schedule_of_many_new_waits_few_are_polled_early() -> None:
    schedule = PollSchedule(INTERVAL, batch=MOST_EARLY, early=(4.0,))
    schedule.restart(NOW)
    for n in range(10_000):
        schedule.add(wait_for(f"k{n}", since=NOW))
    while schedule.take(NOW):
        pass

    assert len(schedule.take(NOW + 4)) == MOST_EARLY
    assert schedule.take(NOW + 4) == []
