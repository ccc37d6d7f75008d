# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The benchmarks, and how long each may take."""

from __future__ import annotations

#: Seconds for all of them: of ``make bench``, and of ``make bench QUICK=1``.
FULL, QUICK = 30 * 60, 10 * 60

#: By name of the module: the most seconds that it may take, in full and quick; None if
#: a quick run leaves it out.
BENCHMARKS: dict[str, tuple[float, float | None]] = {
    "waiting": (600, 140),
    "webhook_latency": (400, 100),
    "triggerers": (300, 90),
    "receiver_load": (120, 60),
    "enqueue": (120, 60),
    "batch": (420, None),
    "inbox_memory": (60, 30),
    "sinks": (200, 90),
    "triggerer_start": (120, 60),
    "delivered_to_done": (480, 240),
}

#: The same of those that run only if they are named: to choose a default, and for more
#: waits than one triggerer gets.
ON_DEMAND: dict[str, float] = {
    "many_waits": 300,
    "defer_after": 300,
    "settle_seconds": 300,
}


def limit_of(name: str, *, quick: bool) -> float:
    """Return the most seconds that a benchmark may take."""
    if name in ON_DEMAND:
        return ON_DEMAND[name]
    full, short = BENCHMARKS[name]
    return full if short is None or not quick else short


def names_of(only: str | None, *, quick: bool) -> list[str]:
    """Return the benchmarks of a run: one, all, or all but those that take long."""
    if only is not None:
        return [only]
    return [name for name, (_, short) in BENCHMARKS.items() if short or not quick]
