# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""What 100,000 waits cost one triggerer: as ``waiting``, with ten times as many."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devtools.benchmarks.waiting import new_table, rows
from runqy_sandbox.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devtools.benchmarks.table import Table

WAITS, QUICK_WAITS = 100_000, 20_000


def run(*, quick: bool) -> Iterator[Table]:
    """Measure the floor and ours."""
    with Sandbox({"queues": {"idle": {}}}) as sandbox:
        waits = QUICK_WAITS if quick else WAITS
        yield from rows(new_table("many_waits"), sandbox, waits, ("floor", "ours"))
