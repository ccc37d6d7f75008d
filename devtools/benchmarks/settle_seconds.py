# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""How many tasks Airflow fails by resuming them early, by ``[runqy] settle_seconds``.

PostgreSQL, LocalExecutor with 16 slots, all tasks resumed on a worker. Jobs of 2 s, so
that each task defers and its result comes while Airflow still handles that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from devtools.benchmarks.burst import HEADS, open_bench
from devtools.benchmarks.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterator

SLOTS = 16
TASKS, QUICK_TASKS = 32, 16
CHOICES = (0, 10)
WORK = 2.0
SETTING = "AIRFLOW__RUNQY__SETTLE_SECONDS"


def run(*, quick: bool) -> Iterator[Table]:
    """Run all choices, one after another."""
    table = Table(
        "settle_seconds",
        f"Tasks that a worker ends, jobs of {WORK} s, {SLOTS} slots, PostgreSQL",
        ("settle_seconds", *HEADS),
    )
    with open_bench({"resumed"}, slots=SLOTS, processes=16) as bench:
        for choice in CHOICES:
            # Workers inherit the scheduler's environment.
            bench.airflow.restart_component("scheduler", {SETTING: str(choice)})
            burst = bench.run("resumed", [WORK] * (QUICK_TASKS if quick else TASKS))
            table.add(choice, *burst.cells)
            yield table
