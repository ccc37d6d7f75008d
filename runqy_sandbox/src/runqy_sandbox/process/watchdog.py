# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Ends the sandbox's processes when the process that started them is gone.

Every child leads a process group. The guardian is told their ids on its standard
input, and which directory is temporary, and waits for the input's end, which comes
however the parent dies. In good order the parent tidies up itself and says `done`.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import shutil
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

#: How long children may take to end before they are killed.
GRACE = 3.0
#: How often to look whether the parent is still the parent: a process that it forked
#: may hold the pipe open after it.
LOOK_EVERY = 1.0


class Guardian:
    """The parent's end of the pipe."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-m", "runqy_sandbox.process.watchdog", str(os.getpid())],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )

    def watch(self, group: int) -> None:
        """Have a process group ended when this process is gone."""
        self._write(f"group {group}\n")

    def remove(self, directory: str) -> None:
        """Have a temporary directory removed when this process is gone."""
        self._write(f"directory {directory}\n")

    def close(self) -> None:
        """Let the guardian go: the children have been ended."""
        with contextlib.suppress(BrokenPipeError):
            self._write("done\n")
        if self._process.stdin:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        self._process.wait()

    def _write(self, text: str) -> None:
        if self._process.stdin:
            self._process.stdin.write(text.encode())
            self._process.stdin.flush()


@contextlib.contextmanager
def guarded(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """Run a command; it ends with the context, or when this process is gone.

    Args:
        command: What to run; it leads a process group of its own.
        options: For ``subprocess.Popen``.
    """
    guardian = Guardian()
    process = subprocess.Popen(command, start_new_session=True, **options)  # noqa: S603 - the caller's own command
    try:
        guardian.watch(process.pid)
        yield process
    finally:
        end_groups([process.pid])
        process.wait()
        guardian.close()


def signal_group(group: int, number: int) -> bool:
    """Send a signal to a process group; tell whether there was one."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        # macOS forbids signals to a group of which only a zombie is left.
        return False
    return True


def end_groups(groups: list[int]) -> None:
    """End process groups, the last one first."""
    left = [group for group in reversed(groups) if signal_group(group, signal.SIGTERM)]
    deadline = time.monotonic() + GRACE
    while left and time.monotonic() < deadline:
        time.sleep(0.05)
        left = [group for group in left if signal_group(group, 0)]
    for group in left:
        signal_group(group, signal.SIGKILL)


def _read_lines(parent: int) -> list[str]:
    """Read until the end of the input, or until the parent is gone."""
    os.set_blocking(0, False)
    data = b""
    with selectors.DefaultSelector() as selector:
        selector.register(0, selectors.EVENT_READ)
        while os.getppid() == parent:
            if not selector.select(LOOK_EVERY):
                continue
            chunk = os.read(0, 4096)
            if not chunk:
                break
            data += chunk
    return data.decode().splitlines()


def main() -> None:
    """Wait for the parent's end; then tidy up after it, unless it has done so."""
    told: dict[str, list[str]] = {"group": [], "directory": [], "done": []}
    for line in _read_lines(int(sys.argv[1])):
        what, _, which = line.partition(" ")
        told[what].append(which)
    if not told["done"]:
        end_groups([int(group) for group in told["group"]])
        for directory in told["directory"]:
            shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
