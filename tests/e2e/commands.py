"""The commands of these tests, as a user runs them."""

from __future__ import annotations

import os
import pty
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
class Killed:
    """A command that was killed.

    Attributes:
        output: What it wrote until then.
        left: Command lines of processes that it left behind.
    """

    output: str
    left: tuple[str, ...]


def run_and_kill_demo() -> Killed:
    """Run the demo in a terminal until all runs have ended, and kill it then.

    A watchdog must then end what it keeps running: it cannot do so itself.
    """
    mark = Mark()
    screen = {"TERM": "xterm-256color", "COLUMNS": "100", "LINES": "40"}
    ours, its = pty.openpty()
    output = b""
    with run_with_watchdog(
        [sys.executable, "-m", "devtools.demo", "--keep"],
        cwd=ROOT,
        env=mark.environment | screen,
        stdout=its,
        stderr=subprocess.STDOUT,
    ) as demo:
        os.close(its)
        while b"Ctrl-C" not in output and (piece := _read_terminal(ours)):
            output += piece
        demo.kill()
        demo.wait()
    os.close(ours)
    left: tuple[str, ...] = ()
    try:
        _wait(lambda: not mark.processes())
    except TimeoutError:
        left = tuple(mark.processes())
    return Killed(output.decode(), left)


def _read_terminal(ours: int) -> bytes:
    try:
        return os.read(ours, 65536)
    except OSError:  # Linux says so if no process writes to it any more
        return b""


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


def _wait(condition: Callable[[], bool], limit: float = 300.0) -> None:
    end = time.monotonic() + limit
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.2)
