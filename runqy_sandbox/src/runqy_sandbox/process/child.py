# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""One process of the sandbox: started, asked until it answers, stopped, killed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from runqy_sandbox.errors import SandboxError
from runqy_sandbox.process.watchdog import signal_group

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from runqy_sandbox.process.watchdog import Guardian

#: How long a child may take to answer, and how often it is asked.
START_DEADLINE, ASK_EVERY = 60.0, 0.02
#: How long a child may take to end after SIGTERM.
STOP_GRACE = 5.0
#: How much of a child's output goes into an error.
SHOWN = 2000


@dataclass(frozen=True)
class Program:
    """What to run, and how to tell that it answers."""

    name: str
    command: list[str]
    #: Asked again and again with the process id, until it returns true.
    answers: Callable[[int], bool]
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)


class Child:
    """A handle on one child process; it starts again on the same port.

    Args:
        program: What to run.
        log: The file that gets its output.
        guardian: Who ends it if this process is killed.
    """

    def __init__(self, program: Program, log: Path, guardian: Guardian) -> None:
        self.log = log
        self._program = program
        self._guardian = guardian
        self._process: subprocess.Popen[bytes] | None = None
        self._left: list[int] = []

    @property
    def pid(self) -> int:
        """The process id.

        Raises:
            SandboxError: It has never been started.
        """
        if self._process is None:
            raise SandboxError(f"The sandbox's {self._program.name} was not started.")
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the process is alive."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the process and wait until it answers; no effect while it runs.

        Raises:
            SandboxError: It ended, or did not answer in time.
        """
        if not self.is_running:
            self.launch()
            self.wait_until_it_answers()

    def launch(self) -> None:
        """Start the process, and wait for nothing."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own programs
                self._program.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self._program.environment},
                start_new_session=True,
            )
        self._guardian.watch(self._process.pid)
        self._left.append(self._process.pid)

    def stop(self) -> None:
        """End the process with SIGTERM, and what it started."""
        if self._process is None:
            return
        if self.is_running:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_GRACE)
        # Earlier processes that were killed may have left task code behind, too.
        for group in self._left:
            signal_group(group, signal.SIGKILL)
        self._left.clear()
        self._process.wait()

    def kill(self) -> None:
        """End the process with SIGKILL; what it started lives on, as in real life."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def wait_until_it_answers(self) -> None:
        """Ask the process until it answers.

        Raises:
            SandboxError: It ended, or did not answer in time.
        """
        deadline = time.monotonic() + START_DEADLINE
        while time.monotonic() < deadline:
            if not self.is_running:
                raise self._error("ended before it answered")
            if self._program.answers(self.pid):
                return
            time.sleep(ASK_EVERY)
        self.stop()
        raise self._error(f"did not answer within {START_DEADLINE:g} s")

    def _error(self, what: str) -> SandboxError:
        output = self.log.read_bytes()[-SHOWN:].decode("utf-8", "replace").strip()
        return SandboxError(
            f"The sandbox's {self._program.name} {what}. "
            f"Its last words, from {self.log}:\n{output or '(none)'}"
        )
