# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""One page of the waiting tasks: what a user may see, filtered and counted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from runqy_provider.plugins.page.waits import Wait

#: The most rows of a page.
MOST_ROWS = 100


@dataclass(frozen=True)
class Filter:
    """What to list.

    Attributes:
        text: Part of a DAG, run, task, job or delivery id, in upper or lower case;
            empty: all.
        runqy_queue: A queue; empty: all.
        newest_first: The order; the oldest is first by default.
        offset: How many to skip.
        limit: How many to list.
    """

    text: str = ""
    runqy_queue: str = ""
    newest_first: bool = False
    offset: int = 0
    limit: int = 50


@dataclass(frozen=True)
class Listing:
    """One page.

    Attributes:
        rows: The tasks on it.
        offset: How many come before it: less than was asked for, where so many are not
            left.
        matching: How many match the filter.
        total: How many wait, of all that the user may see.
        by_queue: How many wait, by queue.
    """

    rows: Sequence[Wait]
    offset: int
    matching: int
    total: int
    by_queue: Mapping[str, int]


def list_waits(
    waits: Sequence[Wait], dag_ids: Collection[str], wanted: Filter
) -> Listing:
    """Return one page.

    Args:
        waits: All waiting tasks, the oldest first.
        dag_ids: The DAGs that the user may read.
        wanted: What to list.
    """
    visible = [wait for wait in waits if wait.dag_id in dag_ids]
    matching = [wait for wait in visible if _matches(wait, wanted)]
    if wanted.newest_first:
        matching.reverse()
    last = max(0, (len(matching) - 1) // wanted.limit * wanted.limit)
    offset = min(wanted.offset, last)
    return Listing(
        rows=matching[offset : offset + wanted.limit],
        offset=offset,
        matching=len(matching),
        total=len(visible),
        by_queue=Counter(wait.runqy_queue for wait in visible),
    )


def _matches(wait: Wait, wanted: Filter) -> bool:
    if wanted.runqy_queue and wait.runqy_queue != wanted.runqy_queue:
        return False
    text = wanted.text.lower()
    ids = (wait.dag_id, wait.task_id, wait.run_id, wait.job_id, wait.delivery_id)
    return not text or any(text in one.lower() for one in ids)
