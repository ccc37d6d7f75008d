# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Waits, and when each of them must be thought of next, whatever comes."""

from __future__ import annotations

import heapq
import itertools
import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable, Iterator

    from runqy_provider.waiters.liveness import Vigil
    from runqy_provider.waiters.source import Arrival

#: Seconds for which a wait whose time has come bears with the one look that it is to
#: have: a server may take a request, and never answer.
LOOK_PATIENCE = 20.0

#: Timers of ended waits are dropped once they outnumber the living by this factor.
STALE_TIMERS = 4


@dataclass(eq=False)
class Wait:
    """One registered wait; times are seconds since 1970."""

    address: str
    deadline: float
    done: asyncio.Future[Arrival | None]
    vigil: Vigil
    since: float = field(default_factory=time.time)
    looked: float = field(default=0.0)
    was_asked: bool = field(default=False)
    timer: float | None = field(default=None)

    @property
    def due(self) -> float:
        """When this wait must be thought of next."""
        end = min(self.deadline, self.vigil.silent_at)
        return end if self.was_asked else max(end, self.since + LOOK_PATIENCE)


class Timers:
    """When waits are due, the next one first: a heap, as there are thousands."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Wait]] = []
        self._order = itertools.count()
        self._living = 0

    def __len__(self) -> int:
        return len(self._heap)

    @property
    def first(self) -> float:
        """When the next wait is due, in seconds since 1970; infinite for none."""
        return self._heap[0][0] if self._heap else math.inf

    def set(self, waits: Iterable[Wait]) -> None:
        """Note when each of these waits is due."""
        for wait in waits:
            when = wait.due
            if when != wait.timer and not wait.done.done():
                wait.timer = when
                heapq.heappush(self._heap, (when, next(self._order), wait))
        if len(self._heap) > STALE_TIMERS * (16 + self._living):
            self._heap = [item for item in self._heap if _counts(item)]
            heapq.heapify(self._heap)
            self._living = len(self._heap)

    def due(self) -> Iterator[Wait]:
        """Yield the waits that are due now; each once, unless it is set again."""
        now = time.time()
        while self._heap and self._heap[0][0] <= now:
            item = heapq.heappop(self._heap)
            if not _counts(item):
                continue
            wait = item[2]
            if wait.due > now:  # a sign of life has come, or a look
                self.set([wait])
            else:
                yield wait


def _counts(item: tuple[float, int, Wait]) -> bool:
    """Tell whether a timer still says something: newer ones replace older ones."""
    when, _, wait = item
    return when == wait.timer and not wait.done.done()
