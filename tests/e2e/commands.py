"""The commands of these tests, as a user runs them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from runqy_sandbox.process.watchdog import run_with_watchdog

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Finished:
    """A command that has ended.

    Attributes:
        status: Its exit status.
        output: What it wrote to stdout.
        errors: What it wrote to stderr.
        left: Command lines of processes that it left behind.
    """

    status: int
    output: str
    errors: str
    left: tuple[str, ...] = ()


def run_demo() -> Finished:
    """Run the demo to its end."""
    mark = Mark()
    finished = _run("devtools.demo", environment=mark.environment)
    return Finished(
        finished.status, finished.output, finished.errors, tuple(mark.processes())
    )


def interrupt_demo(name: str) -> Finished:
    """Start the demo, and end it by a signal once Airflow runs.

    It runs when the triggerer, the last one to start, has a process of its own. Between
    the start of a process and its first entry anywhere, nothing could end it.
    """
    mark = Mark()
    demo = subprocess.Popen(
        [sys.executable, "-m", "devtools.demo"],
        cwd=ROOT,
        env=mark.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    _wait(lambda: sum("airflow triggerer" in one for one in mark.processes()) > 1)
    demo.send_signal(signal.Signals[name])
    status = demo.wait(120)
    try:
        _wait(lambda: not mark.processes())
    except TimeoutError:
        return Finished(status, "", "", tuple(mark.processes()))
    return Finished(status, "", "")


class Mark:
    """A variable in the environment of a command and of all that it starts."""

    def __init__(self) -> None:
        self._text = f"RUNQY_DEMO_MARK={uuid.uuid4().hex}"
        name, _, value = self._text.partition("=")
        self.environment = {**os.environ, name: value}

    def processes(self) -> list[str]:
        """Return the command lines of all processes with this variable."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                variables = (process / "environ").read_bytes().split(b"\0")
                if self._text.encode() in variables:
                    found.append((process / "cmdline").read_text().replace("\0", " "))
            except OSError:
                continue  # it has ended, or belongs to another user
        return found


def _run(
    module: str, *arguments: str, environment: dict[str, str] | None = None
) -> Finished:
    with run_with_watchdog(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        output, errors = running.communicate()
    return Finished(running.returncode, output, errors)


def _wait(condition: Callable[[], bool], limit: float = 300.0) -> None:
    end = time.monotonic() + limit
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.2)
