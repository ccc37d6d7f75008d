"""When a job counts as silent, and what counts as a sign of life."""

from __future__ import annotations

import math
import time
from types import SimpleNamespace

import pytest

from runqy_provider.waiters.source import StatusUpdate
from runqy_provider.waiters.wait import LivenessMonitor

HEARTBEAT = 10.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds since 1970, for the test to move."""
    now = [1000.0]
    monkeypatch.setattr(time, "time", lambda: now[0])
    return now


def test_liveness_job_not_observed_silence_counts_at_once(clock: list[float]) -> None:
    liveness = LivenessMonitor(HEARTBEAT)
    assert liveness.silent_at == 1010.0
    clock[0] = 1010.0
    assert liveness.is_silent


def test_liveness_job_pending_is_not_silent(clock: list[float]) -> None:
    liveness = LivenessMonitor(HEARTBEAT, is_watched=True)
    clock[0] = 5000.0
    assert not liveness.is_silent, "a job that was not seen to start cannot be silent"

    liveness.on_update(StatusUpdate(has_started=False))
    assert liveness.silent_at == math.inf
    liveness.on_update(StatusUpdate(has_started=True))
    assert liveness.silent_at == 5010.0
    clock[0] = 5009.0
    liveness.on_update(StatusUpdate(has_started=True))
    assert liveness.silent_at == 5010.0, "that it runs is not a sign of life"
    liveness.on_update(StatusUpdate("runqy runs it again", has_started=False))
    assert liveness.silent_at == math.inf


def test_liveness_progress_counts_once_by_own_clock(clock: list[float]) -> None:
    """The clock of the receiver that took the progress may be wrong."""
    liveness = LivenessMonitor(HEARTBEAT, is_watched=True)
    liveness.on_update(StatusUpdate("10%", reported_at=400.0))
    assert liveness.silent_at == 1010.0
    clock[0] = 1009.0
    liveness.on_update(StatusUpdate("10%", reported_at=400.0))
    assert liveness.silent_at == 1010.0, "the same message, found by another poll"
    liveness.on_update(StatusUpdate("20%", reported_at=401.0))
    assert liveness.silent_at == 1019.0


def test_liveness_source_unreachable_is_not_silence(clock: list[float]) -> None:
    inbox, watch = (SimpleNamespace(reachable_since=math.inf) for _ in range(2))
    liveness = LivenessMonitor(HEARTBEAT)
    liveness.add_source(inbox)
    liveness.add_source(watch)
    clock[0] = 5000.0
    assert not liveness.is_silent
    inbox.reachable_since = 5000.0
    assert not liveness.is_silent
    watch.reachable_since = 5000.0
    assert liveness.silent_at == 5010.0


def test_liveness_update_text_can_be_stored() -> None:
    updates: list[StatusUpdate] = []
    liveness = LivenessMonitor(on_change=updates.append)
    liveness.on_update(StatusUpdate("a\0b\ud800", reported_at=1.0))
    liveness.on_update(StatusUpdate("runqy says: \0"))

    assert [update.message for update in updates] == [
        "a\ufffdb\ufffd",
        "runqy says: \ufffd",
    ]
    assert (liveness.progress, liveness.job) == ("a\ufffdb\ufffd", "runqy says: \ufffd")
