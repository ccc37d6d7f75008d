# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Seconds from a job's end to that of its task, beside amazon's S3KeySensor.

``python -m devtools.benchmarks.delivered_to_done``: a real Airflow on PostgreSQL, the
sandbox, and the same jobs waited for in four ways, one after another.
"""

from __future__ import annotations

import random

from devtools.benchmarks.burst import HEADS, open_bench

#: Worker slots.
SLOTS = 8

WAYS = {
    "webhook": "ours, webhook",
    "s3": "ours, s3",
    "on_worker": "ours, webhook, end_from_trigger=False",
    "peer": "S3KeySensor(deferrable, poke_interval=5)",
}


def main() -> None:
    """Run all ways, and print the table."""
    chance = random.Random(9)  # noqa: S311 - the same lengths in every run
    short = [round(chance.uniform(0, 3), 2) for _ in range(60)]
    loads = {
        "60 jobs of 0-3 s": short,
        "60 jobs of 30 s": [30.0] * 60,
        "200 jobs of 0 s": [0.0] * 200,
    }
    with open_bench(set(WAYS), slots=SLOTS) as bench:
        print(f"\nFrom a job's end to its task's, {SLOTS} slots, PostgreSQL\n")
        print(f"{'jobs':18} {'waited for by':42} {HEADS}")
        # Whoever comes first pays for a triggerer that has just started.
        burst = bench.run("webhook", short[:8])
        print(f"{'8, new triggerer':18} {WAYS['webhook']:42} {burst.columns}")
        for load, seconds in loads.items():
            for way, message in WAYS.items():
                burst = bench.run(way, seconds)
                print(f"{load:18} {message:42} {burst.columns}", flush=True)


if __name__ == "__main__":
    main()
