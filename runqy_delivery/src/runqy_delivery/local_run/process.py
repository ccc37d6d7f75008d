# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Task code in a child process, which gets its job as runqy's worker sends it.

The protocol is one JSON object per line: on stdin the job, on stdout the response.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from typing import IO, TYPE_CHECKING, Any

from runqy_delivery.local_run.errors import NoResponse, WrongUsage

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

#: Seconds that the process may take to end after its stdin is closed.
END_WITHIN = 5.0

_START_ADVICE = (
    "Check that it registers a handler with @task and ends with run() of runqy_python, "
    "and that what it imports is installed for this Python."
)


class TaskProcess:
    """A running child process with task code.

    Args:
        process: The process, with pipes as stdin and stdout.
        code: Path of the task code, for messages.
        timeout: Seconds from now on until the process must have answered.
    """

    def __init__(
        self, process: subprocess.Popen[str], code: Path, timeout: float
    ) -> None:
        self._process = process
        self._code = code
        self._timeout = timeout
        self._end = time.monotonic() + timeout
        self._lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read_lines, daemon=True).start()

    def wait_until_ready(self) -> None:
        """Wait until the task code says that it is ready.

        Raises:
            WrongUsage: It did not start.
        """
        try:
            message = self._next_message()
        except NoResponse as error:
            raise WrongUsage(f"The code did not start. {error}") from error
        if message is None:
            raise WrongUsage(
                f"{self._code} ended with exit status {self._process.wait()} before it "
                f"was ready for a job. {_START_ADVICE}"
            )
        if message.get("status") != "ready":
            reason = message.get("error") or json.dumps(message)
            raise WrongUsage(f"{self._code} did not start: {reason}. {_START_ADVICE}")

    def run_job(self, job: Mapping[str, Any]) -> dict[str, Any]:
        """Send a job, and return the response that runqy would get.

        Raises:
            NoResponse: The process ended, or did not answer in time.
        """
        stdin = self._process.stdin
        if stdin is not None:
            # If the process has ended already, the missing response says so.
            with contextlib.suppress(BrokenPipeError):
                stdin.write(json.dumps(job) + "\n")
                stdin.flush()
        message = self._next_message()
        if message is None:
            raise NoResponse(
                f"{self._code} ended with exit status {self._process.wait()} during "
                "the job. Its output above may say why."
            )
        return message

    def _next_message(self) -> dict[str, Any] | None:
        """Return the next JSON object that the process wrote; None if it ended.

        Raises:
            NoResponse: There was none in time.
        """
        while True:
            left = self._end - time.monotonic()
            try:
                line = self._lines.get(timeout=max(left, 0.0))
            except queue.Empty:
                raise NoResponse(
                    f"{self._code} did not answer within {self._timeout:g} s. "
                    "--timeout allows more time."
                ) from None
            if line is None:
                return None
            with contextlib.suppress(ValueError):
                message = json.loads(line)
                if isinstance(message, dict):
                    return message
            # Printed by the task code before run(), which protects stdout.
            sys.stderr.write(line)

    def _read_lines(self) -> None:
        stdout = self._process.stdout
        if stdout is not None:
            with stdout:
                for line in stdout:
                    self._lines.put(line)
        self._lines.put(None)


@contextlib.contextmanager
def running(code: Path, timeout: float) -> Iterator[TaskProcess]:
    """Run task code in a child process, which ends with this context.

    The processes that it started end, too.

    Args:
        code: Path of the Python file; its folder is the working directory.
        timeout: Seconds until it must have answered the job.
    """
    process = subprocess.Popen(  # noqa: S603 - the user's own file
        [sys.executable, code.name],
        cwd=code.parent,
        env=_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    )
    try:
        yield TaskProcess(process, code, timeout)
        _close(process.stdin)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(END_WITHIN)
    finally:
        _kill(process)
        process.wait()
        _close(process.stdin)


def _kill(process: subprocess.Popen[str]) -> None:
    """Kill a process and the processes that it started."""
    if not hasattr(os, "killpg"):  # Windows
        process.kill()
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _close(pipe: IO[str] | None) -> None:
    if pipe is not None:
        with contextlib.suppress(BrokenPipeError):
            pipe.close()


def _environment() -> dict[str, str]:
    """Return the variables of the process: no proxy stands before this machine."""
    environment = dict(os.environ)
    for name in ("no_proxy", "NO_PROXY"):
        hosts = [environment.get(name, ""), "127.0.0.1"]
        environment[name] = ",".join(filter(None, hosts))
    return environment
