# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The benchmarks, those that a quick run leaves out, and when one counts as stuck."""

from __future__ import annotations

#: Seconds without a new row of a table after which a benchmark is ended: a slow machine
#: takes longer, and is not stuck.
STUCK_AFTER = 600.0

#: By name of the module, in the order in which they run.
BENCHMARKS = (
    *("waiting", "webhook_latency", "triggerers", "receiver_load", "enqueue", "batch"),
    *("inbox_memory", "sinks", "triggerer_start", "delivered_to_done"),
)

#: Those that ``QUICK=1`` leaves out.
NOT_QUICK = ("batch",)

#: Those that run only if they are named: to choose a default, to explain a figure, and
#: for more waits than one triggerer gets.
ON_DEMAND = ("many_waits", "defer_after", "settle_seconds", "first_task")


def names_of(only: str | None, *, quick: bool) -> list[str]:
    """Return the benchmarks of a run: one, all, or all but those that take long."""
    if only is not None:
        return [only]
    return [name for name in BENCHMARKS if not (quick and name in NOT_QUICK)]
