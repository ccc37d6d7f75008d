# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Seconds from a job's end to that of its task, compared with a floor and a peer.

A real Airflow on PostgreSQL, the sandbox, and the same jobs waited for in several ways,
one after another. The floor is a trigger that waits for one message and ends its task,
or lets a worker end it; each row is compared with the floor above it. The peer is
amazon's S3KeySensor.
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

JOBS, QUICK_JOBS = 60, 16

WAYS = {
    "floor": "floor: a message, and the trigger ends the task",
    "floor_with_xcom": "floor: the same, and the trigger writes an XCom",
    "webhook": "ours, webhook",
    "peer": "peer: S3KeySensor(deferrable, poke_interval=5)",
    "s3": "ours, s3",
    "floor_on_worker": "floor: a message, and a worker ends the task",
    "on_worker": "ours, webhook, end_from_trigger=False",
    "on_worker_1": "the same, defer_after=1 s",
}
QUICK_WAYS = ("floor", "webhook", "peer")


def run(*, quick: bool) -> Iterator[Table]:
    """Run all ways."""
    chance = random.Random(9)  # noqa: S311 - the same lengths in every run
    count = QUICK_JOBS if quick else JOBS
    seconds = [round(chance.uniform(0, 3), 2) for _ in range(count)]
    table = Table(
        "delivered_to_done",
        f"From a job's end to its task's: jobs of 0-3 s, {SLOTS} slots, PostgreSQL",
        ("waited for by", *HEADS, "median of floor", "p90 of floor"),
    )
    memory = Table(
        "airflow_memory",
        f"Memory of Airflow after these tasks, {SLOTS} slots",
        ("component", "MiB"),
    )
    with open_bench(set(WAYS), slots=SLOTS) as bench:
        # Else the first one would pay for a triggerer that has just started.
        bench.run("webhook", seconds[:SLOTS])
        floor = None
        for way in QUICK_WAYS if quick else WAYS:
            burst = bench.run(way, seconds)
            if floor is None or way.startswith("floor"):
                floor = burst
            shares = [
                mine / least for mine, least in zip(burst.lag, floor.lag, strict=True)
            ]
            table.add(WAYS[way], *burst.cells, *shares[:2])
            yield table
        for component, mebibytes in bench.memory().items():
            memory.add(component, mebibytes)
        yield memory
