"""How long a wait bears silence, and what counts as such."""

from __future__ import annotations

import math
import time

import pytest

from runqy_provider.waiters.liveness import Vigil
from runqy_provider.waiters.source import News

HEARTBEAT = 10.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds since 1970, for the test to move."""
    now = [1000.0]
    monkeypatch.setattr(time, "time", lambda: now[0])
    return now


def test_without_a_watch_silence_counts_from_the_start(clock: list[float]) -> None:
    vigil = Vigil(HEARTBEAT)
    assert vigil.silent_at == 1010.0
    clock[0] = 1010.0
    assert vigil.is_silent


def test_a_job_that_waits_for_a_worker_is_not_silent(clock: list[float]) -> None:
    vigil = Vigil(HEARTBEAT, is_watched=True)
    clock[0] = 5000.0
    assert not vigil.is_silent, "it was not seen to begin"

    vigil.hear(News(has_begun=False))
    assert vigil.silent_at == math.inf
    vigil.hear(News(has_begun=True))
    assert vigil.silent_at == 5010.0
    clock[0] = 5009.0
    vigil.hear(News(has_begun=True))
    assert vigil.silent_at == 5010.0, "to run is no sign of life"
    vigil.hear(News("runqy runs it again", has_begun=False))
    assert vigil.silent_at == math.inf


def test_progress_counts_by_our_clock_and_once(clock: list[float]) -> None:
    """Whoever took it may have a clock that is off."""
    vigil = Vigil(HEARTBEAT, is_watched=True)
    vigil.hear(News("10%", said_at=400.0))
    assert vigil.silent_at == 1010.0
    clock[0] = 1009.0
    vigil.hear(News("10%", said_at=400.0))
    assert vigil.silent_at == 1010.0, "the same message, found by another look"
    vigil.hear(News("20%", said_at=401.0))
    assert vigil.silent_at == 1019.0


def test_where_nobody_can_hear_nothing_is_silence(clock: list[float]) -> None:
    vigil, inbox, watch = Vigil(HEARTBEAT), object(), object()
    vigil.lose(inbox)
    vigil.lose(watch)
    clock[0] = 5000.0
    assert not vigil.is_silent
    vigil.regain(inbox)
    assert not vigil.is_silent
    vigil.regain(watch)
    assert vigil.silent_at == 5010.0
    clock[0] = 5005.0
    vigil.regain(watch)
    assert vigil.silent_at == 5010.0, "it was not lost"


def test_what_is_told_can_be_kept() -> None:
    told = []
    vigil = Vigil(tell=told.append)
    vigil.hear(News("a\0b\ud800", said_at=1.0))
    vigil.hear(News("runqy says: \0"))

    assert [news.words for news in told] == ["a\ufffdb\ufffd", "runqy says: \ufffd"]
    assert (vigil.progress, vigil.job) == ("a\ufffdb\ufffd", "runqy says: \ufffd")
