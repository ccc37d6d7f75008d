"""What counts as stored, by how many replicas have it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from runqy_provider.inbox import writer
from runqy_provider.inbox.writer import LOST_FOR, ReplicaCheck


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A clock that the test sets."""
    clock = SimpleNamespace(now=1000.0)
    time = SimpleNamespace(monotonic=lambda: clock.now)
    monkeypatch.setattr(writer, "time", time)
    return clock


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("answer", [0, PermissionError("WAIT")])
def test_replica_check_never_had_a_replica_counts(answer: object) -> None:
    check = ReplicaCheck()
    assert check.error(answer) is None


def test_replica_check_replica_lost_refuses_for_a_while(clock: Any) -> None:
    check = ReplicaCheck()
    assert check.error(1) is None
    clock.now += LOST_FOR - 1
    assert "no replica has confirmed" in str(check.error(0))
    clock.now += 2
    assert check.error(0) is None


def test_replica_check_replica_back_counts_at_once(clock: Any) -> None:
    check = ReplicaCheck()
    check.error(1)
    clock.now += 1
    assert check.error(0) is not None
    assert check.error(1) is None
