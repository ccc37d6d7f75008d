# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""One server process of the sandbox: start it, wait until it is ready, stop it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from runqy_sandbox.errors import SandboxError
from runqy_sandbox.process.interrupts import hold_interrupts
from runqy_sandbox.process.watchdog import signal_group

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from runqy_sandbox.process.watchdog import Watchdog

#: How long a process may take to become ready, in seconds.
START_TIMEOUT = 180.0
#: How long to pause between two readiness checks, in seconds.
POLL_INTERVAL = 0.02
#: How long a process may take to exit after SIGTERM, in seconds.
STOP_TIMEOUT = 5.0
#: How many bytes from the end of the log an error message quotes.
LOG_TAIL = 2000


@dataclass(frozen=True)
class Program:
    """A command, and a check of whether its process is ready.

    Attributes:
        name: The name of the program in error messages.
        command: The command line.
        is_ready: Takes the process id; it is polled until it returns true.
        environment: Variables to add to this process's environment.
    """

    name: str
    command: list[str]
    is_ready: Callable[[int], bool]
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)


class Child:
    """A handle on one child process, which can be stopped and started again.

    Args:
        program: The program to run.
        log: The file that receives its output.
        watchdog: Ends the child if this process is killed.
    """

    def __init__(self, program: Program, log: Path, watchdog: Watchdog) -> None:
        self.log = log
        self._program = program
        self._watchdog = watchdog
        self._process: subprocess.Popen[bytes] | None = None
        self._groups: list[int] = []

    @property
    def pid(self) -> int:
        """The process id.

        Raises:
            SandboxError: The process has never been started.
        """
        if self._process is None:
            raise SandboxError(
                f"The sandbox's {self._program.name} was not started. "
                "Call start() first, or enter the sandbox with 'with'."
            )
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the process and wait until it is ready; no effect while it runs.

        Raises:
            SandboxError: The process exited, or was not ready in time.
        """
        if not self.is_running:
            self.launch()
            self.wait_until_ready()

    def launch(self) -> None:
        """Start the process without waiting until it is ready."""
        with self.log.open("ab") as log, hold_interrupts():
            self._process = subprocess.Popen(  # noqa: S603 - our own programs
                self._program.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self._program.environment},
                start_new_session=True,
            )
            self._watchdog.watch(self._process.pid)
            self._groups.append(self._process.pid)

    def stop(self) -> None:
        """Stop the process with SIGTERM, and kill all processes that it started."""
        if self._process is None:
            return
        if self.is_running:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_TIMEOUT)
        # All groups: a process that was killed earlier may have left task code behind.
        for group in self._groups:
            signal_group(group, signal.SIGKILL)
        self._groups.clear()
        self._process.wait()

    def kill(self) -> None:
        """Kill the process with SIGKILL; the processes that it started keep running."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def wait_until_ready(self) -> None:
        """Poll the process until it is ready.

        Raises:
            SandboxError: The process exited, or was not ready in time.
        """
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            if not self.is_running:
                raise self._error("exited before it was ready")
            if self._program.is_ready(self.pid):
                return
            time.sleep(POLL_INTERVAL)
        self.stop()
        raise self._error(f"was not ready within {START_TIMEOUT:g} s")

    def describe_log(self) -> str:
        """Return the path of the log, and its end, for a message."""
        output = self.log.read_bytes()[-LOG_TAIL:].decode("utf-8", "replace").strip()
        return f"The end of its log, {self.log}:\n{output or '(empty)'}"

    def _error(self, problem: str) -> SandboxError:
        name = self._program.name
        return SandboxError(f"The sandbox's {name} {problem}. {self.describe_log()}")
