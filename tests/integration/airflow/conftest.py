"""Settings that several test files of this folder share."""

from __future__ import annotations

import pytest


@pytest.fixture
def short_watch_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the job monitor poll every 0.3 s, and report a vanished job after 0.6 s."""
    monkeypatch.setenv("AIRFLOW__RUNQY__WATCH_SECONDS", "0.3")
    monkeypatch.setenv("AIRFLOW__RUNQY__VANISHED_GRACE_SECONDS", "0.6")
