# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Processes and what they have started, as Linux tells of them."""

from __future__ import annotations

from pathlib import Path


def title(pid: int) -> str:
    """Return a process's command line; empty where it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def parent(pid: int) -> int:
    """Return who started a process; 0 where it has ended."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def descendants(root: int) -> list[int]:
    """Return the processes that a process has started, however far down."""
    parents = {int(path.name): 0 for path in Path("/proc").glob("[0-9]*")}
    parents = {pid: parent(pid) for pid in parents}
    found: list[int] = []
    fresh = {root}
    while fresh:
        fresh = {pid for pid, started_by in parents.items() if started_by in fresh}
        found += fresh
    return found
