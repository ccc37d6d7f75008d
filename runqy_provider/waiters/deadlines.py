# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""When each registered wait is due to end."""

from __future__ import annotations

import heapq
import itertools
import math
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from runqy_provider.waiters.wait import Wait

#: Entries of ended waits are dropped once there are this many times more than waits.
STALE_FACTOR = 4


class DeadlineQueue:
    """Waits in the order in which they are due: a heap, as there may be thousands."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Wait]] = []
        self._order = itertools.count()
        self._active = 0

    def __len__(self) -> int:
        return len(self._heap)

    @property
    def first(self) -> float:
        """When the next wait is due, in seconds since 1970; infinite for none."""
        return self._heap[0][0] if self._heap else math.inf

    def set(self, waits: Iterable[Wait]) -> None:
        """Enter each of these waits at the time at which it is due."""
        for wait in waits:
            when = wait.due
            if when != wait.queued_for and not wait.is_over:
                wait.queued_for = when
                heapq.heappush(self._heap, (when, next(self._order), wait))
        if len(self._heap) > STALE_FACTOR * (16 + self._active):
            self._heap = [item for item in self._heap if _is_current(item)]
            heapq.heapify(self._heap)
            self._active = len(self._heap)

    def due(self) -> Iterator[Wait]:
        """Yield the waits that are due now; each once, unless it is entered again."""
        now = time.time()
        while self._heap and self._heap[0][0] <= now:
            item = heapq.heappop(self._heap)
            if not _is_current(item):
                continue
            wait = item[2]
            if wait.due > now:  # a sign of life, or a poll, has moved it
                self.set([wait])
            else:
                yield wait


def _is_current(item: tuple[float, int, Wait]) -> bool:
    """Return whether an entry is the newest one of its wait."""
    when, _, wait = item
    return when == wait.queued_for and not wait.is_over
