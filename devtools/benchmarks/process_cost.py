# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""What processes have used: memory and processor time."""

from __future__ import annotations

import contextlib

import psutil


def memory(pid: int | None = None) -> float:
    """Return the resident memory of a process, or of this one, in KiB."""
    return float(psutil.Process(pid).memory_info().rss / 1024)


def processor_seconds(pid: int) -> float:
    """Return the processor time that a process has used, in seconds."""
    return float(sum(psutil.Process(pid).cpu_times()[:2]))


def tree_of(pid: int) -> list[psutil.Process]:
    """Return a process and all that it has started, directly or not."""
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


def tree_memory(pid: int) -> float:
    """Return the memory of a tree in MiB; what processes share counts once."""
    total = 0.0
    for each in tree_of(pid):
        with contextlib.suppress(psutil.Error):
            total += each.memory_full_info().pss
    return total / 2**20


def tree_processor_seconds(pid: int) -> float:
    """Return the processor time of a tree, with that of processes that have ended."""
    total = 0.0
    for each in tree_of(pid):
        with contextlib.suppress(psutil.Error):
            total += sum(each.cpu_times()[:4])
    return total


def connections() -> int:
    """Return how many sockets this process has."""
    return len(psutil.Process().net_connections("all"))
