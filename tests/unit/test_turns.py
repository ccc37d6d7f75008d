"""The order in which waits are polled: in batches, spread over the interval."""

from __future__ import annotations

import itertools

from runqy_provider.waiters.liveness import LivenessMonitor
from runqy_provider.waiters.turns import MOST_EARLY, Turns
from runqy_provider.waiters.wait import Wait

NOW = 1000.0
INTERVAL = 10.0


def wait_for(key: str, since: float = 0.0) -> Wait:
    return Wait(key, 1e12, LivenessMonitor(), lambda *_: None, since=since)


def turns_of(count: int, batch: int | None = None) -> Turns:
    """Return turns whose waits have been polled once."""
    turns = Turns(INTERVAL, batch=batch)
    turns.restart(NOW)
    for n in range(count):
        turns.add(wait_for(f"k{n}"))
    while turns.take(NOW):
        pass
    return turns


def test_turns_new_waits_are_polled_at_once_in_batches() -> None:
    turns = Turns(INTERVAL, batch=2)
    turns.restart(NOW)
    for n in range(5):
        turns.add(wait_for(f"k{n}"))

    assert turns.next_poll == 0.0
    assert [turns.take(NOW) for _ in range(4)] == [
        ["k0", "k1"],
        ["k2", "k3"],
        ["k4"],
        [],
    ]
    assert turns.next_poll == NOW + INTERVAL


def test_turns_without_batch_poll_all_at_each_interval() -> None:
    turns = turns_of(1000)

    assert len(turns.take(NOW + INTERVAL)) == 1000
    assert turns.next_poll == NOW + 2 * INTERVAL


def test_turns_with_batch_are_spread_over_the_interval() -> None:
    turns, polled, times = turns_of(1000, batch=100), [], []
    now = NOW + INTERVAL
    while now < NOW + 2 * INTERVAL:
        polled.append(turns.take(now))
        times.append(now)
        now = turns.next_poll

    assert [len(keys) for keys in polled] == [100] * 10
    assert len(set().union(*polled)) == 1000
    assert {round(b - a, 6) for a, b in itertools.pairwise(times)} == {1.0}


def test_turns_hint_is_polled_before_its_turn_and_does_not_stop_turns() -> None:
    turns = turns_of(1000, batch=100)
    for second in range(10):
        turns.poll_soon([f"k{n}" for n in range(200)])
        taken = turns.take(NOW + INTERVAL + second)
        assert len(taken) >= 100
        turns.take(NOW + INTERVAL + second)

    turn = turns.take(NOW + 2 * INTERVAL)
    assert turn[0] == "k0", "all had their turn, though there were always hints"


def test_turns_ended_wait_has_no_turn() -> None:
    turns = Turns(INTERVAL, batch=2)
    turns.restart(NOW)
    waits = [wait_for(f"k{n}") for n in range(3)]
    for wait in waits:
        turns.add(wait)
    while turns.take(NOW):
        pass
    waits[1].end()

    assert turns.take(NOW + INTERVAL) == ["k0"]
    assert turns.take(NOW + 2 * INTERVAL) == ["k2", "k0"]


def test_turns_failed_keys_come_at_next_turn_and_after_a_success_at_once() -> None:
    turns = turns_of(1000, batch=100)
    failed = turns.take(NOW + INTERVAL)
    turns.on_failure(failed, NOW + INTERVAL + 5)

    assert turns.take(NOW + INTERVAL + 1) == []
    assert turns.take(NOW + INTERVAL + 5) == failed
    turns.on_failure(failed, NOW + INTERVAL + 20)
    turns.poll_soon(["k999"])
    assert turns.take(NOW + INTERVAL + 6) == ["k999"]
    turns.on_success()
    assert turns.take(NOW + INTERVAL + 6) == failed


def test_turns_old_wait_is_due_less_often() -> None:
    turns = Turns(0.5, max_interval=10.0)
    turns.restart(NOW)
    young, old = wait_for("young", since=NOW - 1), wait_for("old", since=NOW - 1000)
    young.polled_at = old.polled_at = NOW
    turns.add(young)
    turns.add(old)
    turns.take(NOW)

    assert turns.take(NOW + 0.5) == ["young"]
    assert turns.take(NOW + 10.5) == ["young", "old"]


def test_turns_new_waits_are_polled_early_beside_their_turns() -> None:
    turns = Turns(INTERVAL, early=(4.0, 9.0))
    turns.restart(NOW)
    for key, since in (("a", NOW), ("b", NOW + 1), ("ended", NOW)):
        wait = wait_for(key, since=since)
        turns.add(wait)
        if key == "ended":
            wait.end()
    assert turns.take(NOW + 1) == ["a", "b", "ended"]

    polled = []
    while turns.next_poll < NOW + INTERVAL:
        polled.append((turns.next_poll - NOW, turns.take(turns.next_poll)))

    assert [(at, keys) for at, keys in polled if keys] == [
        (4.0, ["a"]),
        (5.0, ["b"]),
        (9.0, ["a"]),
    ]


def test_turns_of_many_new_waits_few_are_polled_early() -> None:
    turns = Turns(INTERVAL, batch=MOST_EARLY, early=(4.0,))
    turns.restart(NOW)
    for n in range(10_000):
        turns.add(wait_for(f"k{n}", since=NOW))
    while turns.take(NOW):
        pass

    assert len(turns.take(NOW + 4)) == MOST_EARLY
    assert turns.take(NOW + 4) == []
