# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Seconds from a job's end to that of its task, compared with amazon's S3KeySensor.

A real Airflow on PostgreSQL, the sandbox, and the same jobs waited for in several ways,
one after another.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from devtools.benchmarks.burst import HEADS, open_bench
from devtools.benchmarks.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Worker slots.
SLOTS = 8

JOBS, QUICK_JOBS = 32, 16

WAYS = {
    "webhook": "ours, webhook",
    "peer": "peer: S3KeySensor(deferrable, poke_interval=5)",
    "s3": "ours, s3",
    "on_worker": "ours, webhook, end_from_trigger=False",
}
QUICK_WAYS = ("webhook", "peer")


def run(*, quick: bool) -> Iterator[Table]:
    """Run all ways."""
    chance = random.Random(9)  # noqa: S311 - the same lengths in every run
    count = QUICK_JOBS if quick else JOBS
    seconds = [round(chance.uniform(0, 3), 2) for _ in range(count)]
    table = Table(
        "delivered_to_done",
        f"From a job's end to its task's: jobs of 0-3 s, {SLOTS} slots, PostgreSQL",
        ("waited for by", *HEADS),
    )
    memory = Table(
        "airflow_memory",
        f"Memory of Airflow after these tasks, {SLOTS} slots",
        ("component", "MiB"),
    )
    with open_bench(set(WAYS), slots=SLOTS) as bench:
        # Else the first one would pay for a triggerer that has just started.
        bench.run("webhook", seconds[:SLOTS])
        for way in QUICK_WAYS if quick else WAYS:
            table.add(WAYS[way], *bench.run(way, seconds).cells)
            yield table
        for component, mebibytes in bench.memory().items():
            memory.add(component, mebibytes)
        yield memory
