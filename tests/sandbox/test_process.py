# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Tests of child processes and of their watchdog."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

from runqy_sandbox.errors import SandboxError
from runqy_sandbox.process.child import Child, Program
from runqy_sandbox.process.watchdog import Watchdog, end_groups, run_with_watchdog

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def watchdog() -> Iterator[Watchdog]:
    with contextlib.closing(Watchdog()) as watchdog:
        yield watchdog


def _ignoring_sigterm(ready: Path) -> Program:
    script = f"trap '' TERM; touch {ready}; while true; do sleep 0.05; done"
    return Program("shell", ["sh", "-c", script], lambda _: ready.exists())


def test_child_never_ready_is_stopped(
    tmp_path: Path, watchdog: Watchdog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runqy_sandbox.process.child.START_TIMEOUT", 0.2)
    program = Program("sleeper", ["sleep", "60"], lambda _: False)
    child = Child(program, tmp_path / "log", watchdog)
    with pytest.raises(SandboxError, match=r"sleeper was not ready within 0.2 s"):
        child.start()
    assert not child.is_running


def test_child_never_started_has_no_pid(tmp_path: Path, watchdog: Watchdog) -> None:
    program = Program("sleeper", ["sleep", "60"], lambda _: True)
    child = Child(program, tmp_path / "log", watchdog)
    child.stop()
    child.kill()
    with pytest.raises(SandboxError, match=r"sleeper was not started. Call start\(\)"):
        _ = child.pid


def test_child_ignoring_sigterm_is_killed(
    tmp_path: Path, watchdog: Watchdog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runqy_sandbox.process.child.STOP_TIMEOUT", 0.1)
    child = Child(_ignoring_sigterm(tmp_path / "ready"), tmp_path / "log", watchdog)
    child.start()
    child.stop()
    assert not child.is_running


def test_end_groups_ignoring_sigterm_are_killed(
    tmp_path: Path, watchdog: Watchdog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runqy_sandbox.process.watchdog.GRACE", 0.1)
    child = Child(_ignoring_sigterm(tmp_path / "ready"), tmp_path / "log", watchdog)
    child.start()
    end_groups([child.pid])
    while child.is_running:
        time.sleep(0.01)
    child.stop()


def test_run_with_watchdog_left_ends_process() -> None:
    with run_with_watchdog(["sleep", "60"]) as process:
        assert process.poll() is None
    assert process.returncode == -signal.SIGTERM


def test_watchdog_close_after_its_process_was_killed_has_no_effect() -> None:
    watchdog = Watchdog()
    os.kill(watchdog._process.pid, signal.SIGKILL)
    watchdog._process.wait()
    watchdog.close()
