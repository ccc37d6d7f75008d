# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Seconds from a job's end to that of its task, for the first task of a triggerer.

Each way gets an Airflow that has just started. What a floor takes, too, is Airflow's:
at the first request of a trigger, such as that for an XCom, a triggerer builds its API.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from devtools.benchmarks.burst import open_bench
from devtools.benchmarks.delivered_to_done import WAYS
from devtools.benchmarks.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Seconds that the first job, and each of the others, works.
FIRST, OTHERS = 2.0, [1.5, 1.5, 1.5, 1.5]


def run(*, quick: bool) -> Iterator[Table]:  # noqa: ARG001 - as the others
    """Run one job, then others, with each way."""
    table = Table(
        "first_task",
        "From a job's end to its task's, in a triggerer that has just started",
        ("waited for by", "first task s", "median of those after it s"),
    )
    for way in ("floor", "floor_with_xcom", "webhook"):
        with open_bench({way}, slots=4, processes=4) as bench:
            first = bench.run(way, [FIRST])
            later = bench.run(way, OTHERS)
        table.add(WAYS[way], max(first.lags), later.lag[0])
        yield table
