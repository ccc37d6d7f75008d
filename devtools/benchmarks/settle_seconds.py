# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""How many tasks Airflow fails by resuming them early, by ``[runqy] settle_seconds``.

``python -m devtools.benchmarks.settle_seconds [TASKS]``: PostgreSQL, LocalExecutor with
16 slots, all tasks resumed on a worker. Jobs of 2 s, so that each task defers and its
result comes while Airflow still handles that.
"""

from __future__ import annotations

import sys

from devtools.benchmarks.burst import HEADS, open_bench

SLOTS = 16
CHOICES = (0, 2, 5, 10, 15)
WORK = 2.0
SETTING = "AIRFLOW__RUNQY__SETTLE_SECONDS"


def main(tasks: int) -> None:
    """Run all choices, one after another, and print the table."""
    with open_bench({"resumed"}, slots=SLOTS, processes=16) as bench:
        print(f"\n{tasks} tasks, jobs of {WORK} s, {SLOTS} slots, PostgreSQL\n")
        print(f"{'settle_seconds':>14} {HEADS}")
        for choice in CHOICES:
            # Workers inherit the scheduler's environment.
            bench.airflow.restart_component("scheduler", {SETTING: str(choice)})
            burst = bench.run("resumed", [WORK] * tasks)
            print(f"{choice:14} {burst.columns}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
