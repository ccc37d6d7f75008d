# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Which waits are polled next: in batches, so that no poll blocks the event loop.

Every wait gets its turn once in each interval. With many waits their turns are spread
over the interval, a batch each. Waits that are new, or for which there was a hint, do
not wait for their turn. A few new ones are polled early, too: where the interval is
long, what goes wrong at the start of a job is seen soon.
"""

from __future__ import annotations

import heapq
import itertools
import sys
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from runqy_provider.waiters.wait import Wait

#: Where the interval grows with the age of a wait: after a minute a job is polled every
#: six seconds, so that the wait is longer than the job by at most this share.
SHARE_OF_AGE = 0.1


#: How many waits are polled early at a time: where thousands begin, each has its turn.
MOST_EARLY = 200


class Turns:
    """The order in which waits are polled; times are seconds since 1970.

    Args:
        interval: Seconds between two polls of a wait.
        max_interval: The same for an old wait; None: the same as for a new one.
        batch: How many keys are polled at once; None: any number.
        early: Ages in seconds, in order, at which a wait is polled beside its turns;
            no more waits at a time than ``MOST_EARLY``.
    """

    def __init__(
        self,
        interval: float,
        max_interval: float | None = None,
        batch: int | None = None,
        early: Sequence[float] = (),
    ) -> None:
        self._interval = interval
        self._max_interval = (
            interval if max_interval is None else max(interval, max_interval)
        )
        self._batch = sys.maxsize if batch is None else batch
        self._early = tuple(early)
        #: When the next early poll of a wait is due, a number, at which age, the wait.
        self._soon: list[tuple[float, int, int, Wait]] = []
        self._order = itertools.count()
        self._waits: deque[Wait] = deque()
        # Dictionaries, as they keep the order and find a key at once.
        self._urgent: dict[str, None] = {}
        self._failed: dict[str, None] = {}
        #: When the next turn is due.
        self.next_turn = 0.0

    @property
    def next_poll(self) -> float:
        """When the next poll is due; 0 for now."""
        if self._urgent:
            return 0.0
        return min(self.next_turn, self._soon[0][0]) if self._soon else self.next_turn

    def restart(self, now: float) -> None:
        """Let the next turn come in an interval from now."""
        self.next_turn = now + self._interval

    def clear(self) -> None:
        """Forget all waits: they have ended."""
        for each in (self._waits, self._urgent, self._failed, self._soon):
            each.clear()

    def add(self, wait: Wait) -> None:
        """Give a new wait its turn, and a poll soon."""
        self._waits.append(wait)
        self._urgent[wait.key] = None
        if self._early and len(self._soon) < MOST_EARLY:
            self._poll_early(wait, 0)

    def poll_soon(self, keys: Iterable[str]) -> None:
        """Let these keys be polled without waiting for their turn."""
        self._urgent.update(dict.fromkeys(keys))

    def take(self, now: float) -> list[str]:
        """Return the keys to poll now, at most twice a batch of them."""
        while self._soon and self._soon[0][0] <= now:
            _, _, age, wait = heapq.heappop(self._soon)
            if not wait.is_over:
                self._urgent[wait.key] = None
                if age + 1 < len(self._early):
                    self._poll_early(wait, age + 1)
        keys = _pop(self._urgent, self._batch)
        if now < self.next_turn:
            return keys
        turn = _pop(self._failed, self._batch) or self._pop_turn(now)
        return list(dict.fromkeys((*keys, *turn)))

    def on_success(self) -> None:
        """Poll those at once for which an earlier poll has failed."""
        self._urgent.update(self._failed)
        self._failed.clear()

    def on_failure(self, keys: Iterable[str], next_turn: float) -> None:
        """Poll these keys again at the next turn, which is later than usual."""
        self._failed.update(dict.fromkeys(keys))
        self.next_turn = next_turn

    def _poll_early(self, wait: Wait, age: int) -> None:
        when = wait.since + self._early[age]
        heapq.heappush(self._soon, (when, next(self._order), age, wait))

    def _pop_turn(self, now: float) -> list[str]:
        """Return the keys of the next batch that are due."""
        count = len(self._waits)
        size = min(count, self._batch)
        self.next_turn = now + self._interval * (size / count if count else 1.0)
        keys = []
        for _ in range(size):
            wait = self._waits.popleft()
            if not wait.is_over:
                self._waits.append(wait)
                if self._is_due(wait, now):
                    keys.append(wait.key)
        return keys

    def _is_due(self, wait: Wait, now: float) -> bool:
        # Half an interval of tolerance: a slightly late poll must not skip a turn.
        interval = min(self._max_interval, SHARE_OF_AGE * (now - wait.since))
        return now - wait.polled_at >= interval - self._interval / 2


def _pop(keys: dict[str, None], most: int) -> list[str]:
    taken = list(islice(keys, most))
    for key in taken:
        del keys[key]
    return taken
