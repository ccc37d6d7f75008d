# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""What mapped tasks with short jobs cost, by how long they wait before they defer.

``python -m devtools.benchmarks.defer_after [TASKS]``: a real Airflow on PostgreSQL, the
sandbox, jobs of half a second and of 0 to 3 s. The peer is a task that does not defer
at all.
"""

from __future__ import annotations

import random
import sys

from devtools.benchmarks.burst import HEADS, open_bench

SLOTS = 8

WAYS = {
    "defer_after_0": "0",
    "defer_after_1": "1",
    "defer_after_2": "2",
    "not_deferred": "(no defer)",
}


def main(tasks: int) -> None:
    """Run all choices, one after another, and print the table."""
    chance = random.Random(9)  # noqa: S311 - the same lengths in every run
    loads = {
        "0.5 s": [0.5] * tasks,
        "0-3 s": [round(chance.uniform(0, 3), 2) for _ in range(tasks)],
    }
    with open_bench(set(WAYS), slots=SLOTS) as bench:
        # A triggerer that has just started is slow at first.
        bench.run("defer_after_0", [0.5] * 8)
        print(f"\n{tasks} mapped tasks, {SLOTS} slots, PostgreSQL\n")
        print(f"{'jobs':6} {'defer_after':>12} {HEADS}")
        for load, seconds in loads.items():
            for way, choice in WAYS.items():
                burst = bench.run(way, seconds)
                print(f"{load:6} {choice:>12} {burst.columns}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 60)
