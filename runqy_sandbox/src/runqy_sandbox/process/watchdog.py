# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""A process that ends the sandbox's child processes when their parent is gone.

Every child leads a process group. The parent writes the ids of these groups, and the
paths of its temporary directories, to the watchdog's standard input. The end of that
input means that the parent is gone, however it died; the watchdog then ends the groups
and removes the directories. A parent that cleans up by itself writes ``done`` first.
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

from runqy_sandbox.process.interrupts import hold_interrupts

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

#: How long processes may take to exit before they are killed, in seconds.
GRACE = 3.0
#: How often to check that the parent is still the parent, in seconds: a process that it
#: forked may keep the pipe open after the parent's death.
POLL_INTERVAL = 1.0


class Watchdog:
    """Starts the watchdog process, and writes to it what to clean up."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-m", "runqy_sandbox.process.watchdog", str(os.getpid())],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )

    def watch(self, group: int) -> None:
        """End a process group once this process is gone."""
        self._write(f"group {group}\n")

    def remove(self, directory: str) -> None:
        """Remove a temporary directory once this process is gone."""
        self._write(f"directory {directory}\n")

    def close(self) -> None:
        """End the watchdog process; the caller has cleaned up by itself."""
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
def run_with_watchdog(
    command: Sequence[str], **options: Any
) -> Iterator[subprocess.Popen[Any]]:
    """Run a command that ends with the context, or when this process is killed.

    Args:
        command: The command line; its process leads a process group.
        options: Arguments for ``subprocess.Popen``.
    """
    watchdog = Watchdog()
    process: subprocess.Popen[Any] | None = None
    try:
        with hold_interrupts():
            process = subprocess.Popen(command, start_new_session=True, **options)  # noqa: S603 - the caller's own command
            watchdog.watch(process.pid)
        yield process
    finally:
        if process is not None:
            end_groups([process.pid])
            process.wait()
        watchdog.close()


def signal_group(group: int, number: int) -> bool:
    """Send a signal to a process group; return whether the group exists."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        # macOS forbids signals to a group in which only a zombie is left.
        return False
    return True


def end_groups(groups: list[int]) -> None:
    """End process groups in reverse order: SIGTERM first, SIGKILL after ``GRACE``."""
    left = [group for group in reversed(groups) if signal_group(group, signal.SIGTERM)]
    deadline = time.monotonic() + GRACE
    while left and time.monotonic() < deadline:
        time.sleep(0.05)
        left = [group for group in left if signal_group(group, 0)]
    for group in left:
        signal_group(group, signal.SIGKILL)


def _read_lines(parent: int) -> list[str]:
    """Read standard input until its end, or until the parent is gone."""
    os.set_blocking(0, False)
    data = b""
    with selectors.DefaultSelector() as selector:
        selector.register(0, selectors.EVENT_READ)
        while os.getppid() == parent:
            if not selector.select(POLL_INTERVAL):
                continue
            chunk = os.read(0, 4096)
            if not chunk:
                break
            data += chunk
    return data.decode().splitlines()


def main() -> None:
    """Wait until the parent is gone, then clean up unless the parent has done so."""
    received: dict[str, list[str]] = {"group": [], "directory": [], "done": []}
    for line in _read_lines(int(sys.argv[1])):
        kind, _, value = line.partition(" ")
        received[kind].append(value)
    if not received["done"]:
        end_groups([int(group) for group in received["group"]])
        for directory in received["directory"]:
            shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
