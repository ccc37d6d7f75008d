"""The demo as a user runs it: real Airflow, real sandbox, and nothing left over."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from devtools.demo.__main__ import EXPECTED
from runqy_sandbox.process.watchdog import guarded

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]


def test_the_demo_ends_well_and_leaves_nothing_behind() -> None:
    # Whatever the demo starts carries this mark in its environment.
    mark = f"RUNQY_DEMO_MARK={os.getpid()}"
    name, _, value = mark.partition("=")
    with guarded(
        [sys.executable, "-m", "devtools.demo"],
        cwd=ROOT,
        env={**os.environ, name: value},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as demo:
        said, complained = demo.communicate()

    assert demo.returncode == 0, said[-6000:] + complained[-3000:]
    rows = sum(wanted.count for wanted in EXPECTED)
    assert f"{rows} tasks, 0 not as they should be." in said
    assert "ValueError: recording.silence has nothing to hear" in said
    assert "tasks of the fan-out waited at once for a runqy worker to start" in said
    assert _alive(mark) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_demo_leaves_nothing_behind(number: int) -> None:
    mark = f"RUNQY_DEMO_MARK={os.getpid()}-{number}"
    name, _, value = mark.partition("=")
    demo = subprocess.Popen(
        [sys.executable, "-m", "devtools.demo"],
        cwd=ROOT,
        env={**os.environ, name: value},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    _wait(lambda: any("airflow triggerer" in one for one in _alive(mark)))
    demo.send_signal(number)
    demo.wait(120)

    _wait(lambda: _alive(mark) == [])


def _wait(condition: Callable[[], bool], limit: float = 300.0) -> None:
    end = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.2)


def _alive(mark: str) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (process / "environ").read_bytes().split(b"\0"):
                found.append((process / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue  # it ended, or is not ours to look at
    return found
