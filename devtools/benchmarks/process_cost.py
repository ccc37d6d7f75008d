# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""What a process has used: memory, processor time, connections; read from /proc."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def memory(pid: int | None = None) -> float:
    """Return the resident memory of a process, or of this one, in KiB."""
    status = Path(f"/proc/{pid or os.getpid()}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return float(line.split()[1])


def processor_seconds(pid: int) -> float:
    """Return the processor time that a process has used, in seconds."""
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / _TICKS


def tree_of(pid: int) -> list[int]:
    """Return a process and all that it has started, directly or not."""
    parents: dict[int, int] = {}
    for each in Path("/proc").iterdir():
        with contextlib.suppress(ValueError, OSError):
            parents[int(each.name)] = int(_stat(int(each.name))[1])
    tree = [pid]
    for parent in tree:
        tree += [child for child, its in parents.items() if its == parent]
    return tree


def tree_memory(pid: int) -> float:
    """Return the memory of a tree in MiB; what processes share counts once."""
    total = 0
    for each in tree_of(pid):
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{each}/smaps_rollup").read_text().splitlines()
            found = next(line for line in lines if line.startswith("Pss:"))
            total += int(found.split()[1])
    return total / 1024


def tree_processor_seconds(pid: int) -> float:
    """Return the processor time of a tree, with that of processes that have ended."""
    ticks = 0
    for each in tree_of(pid):
        with contextlib.suppress(OSError):
            ticks += sum(map(int, _stat(each)[11:15]))
    return ticks / _TICKS


def _stat(pid: int) -> list[str]:
    """Return the fields of a process from its state on."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def connections() -> int:
    """Return how many sockets this process has."""
    sockets = 0
    for each in Path("/proc/self/fd").iterdir():
        try:
            sockets += str(each.readlink()).startswith("socket:")
        except OSError:
            continue  # the one that listed the others
    return sockets
