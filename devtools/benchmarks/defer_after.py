# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""What mapped tasks with short jobs cost, by how long they wait before they defer.

A real Airflow on PostgreSQL, the sandbox, jobs of 0 to 3 s. The
floor is a task that does not defer at all.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from devtools.benchmarks.burst import HEADS, open_bench
from devtools.benchmarks.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterator

SLOTS = 8

TASKS, QUICK_TASKS = 16, 8

WAYS = {
    "defer_after_0": "0",
    "defer_after_1": "1 s",
    "defer_after_2": "2 s",
    "not_deferred": "bare: never defers",
}


def run(*, quick: bool) -> Iterator[Table]:
    """Run all choices, one after another."""
    chance = random.Random(9)  # noqa: S311 - the same lengths in every run
    tasks = QUICK_TASKS if quick else TASKS
    seconds = [round(chance.uniform(0, 3), 2) for _ in range(tasks)]
    table = Table(
        "defer_after",
        f"Mapped tasks with jobs of 0-3 s, {SLOTS} slots, PostgreSQL",
        ("defer_after", *HEADS),
    )
    with open_bench(set(WAYS), slots=SLOTS) as bench:
        # A triggerer that has just started is slow at first.
        bench.run("defer_after_0", [0.5] * SLOTS)
        for way, choice in WAYS.items():
            table.add(choice, *bench.run(way, seconds).cells)
            yield table
