# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""One wait at each of several sources, of which the first to end counts."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from runqy_provider.errors import RunqyError
from runqy_provider.waiters.registry import shared_waiter
from runqy_provider.waiters.wait import Wait

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from runqy_provider.waiters.liveness import LivenessMonitor
    from runqy_provider.waiters.registry import WaitTarget
    from runqy_provider.waiters.source import Arrival
    from runqy_provider.waiters.waiter import Waiter

log = logging.getLogger(__name__)


class Race:
    """Waits for one delivery at several sources: no tasks, as there may be thousands.

    The first arrival ends it, and the first error; but an error of a source that is not
    required does not, unless it is a fault in the program. The deadline ends it where
    all waits have ended.

    Args:
        targets: The sources; their waiters are shared with all other waits.
        monitor: The source that observes the job itself.
        deadline: When to give up, in seconds since 1970.
        liveness: Receives status updates, and says when the job is silent.
        on_end: Is called once: with the arrival (None at the deadline) and the error.
    """

    __slots__ = ("_is_over", "_on_end", "_open", "_waits")

    def __init__(
        self,
        targets: Sequence[WaitTarget],
        monitor: WaitTarget | None,
        deadline: float,
        liveness: LivenessMonitor,
        on_end: Callable[[Arrival | None, BaseException | None], None],
    ) -> None:
        all_targets = (*targets, *([monitor] if monitor else ()))
        self._on_end = on_end
        self._is_over = False
        self._open = len(all_targets)
        self._waits: list[tuple[Waiter, Wait, bool]] = []
        for target in all_targets:
            waiter = shared_waiter(target.waiter_key, target.waiter_factory)
            wait = Wait(target.key, deadline, liveness, self._on_wait_end)
            self._waits.append((waiter, wait, target.is_required))
            waiter.add(wait)

    def close(self) -> None:
        """Forget the waits, whether they have ended or not."""
        self._is_over = True
        for waiter, wait, _ in self._waits:
            waiter.remove(wait)
        self._waits.clear()  # or they and the race would keep each other in memory

    def _on_wait_end(
        self, wait: Wait, arrival: Arrival | None, error: BaseException | None
    ) -> None:
        self._open -= 1
        if self._is_over:
            return
        if arrival is None and error is not None:
            ends = self._is_required(wait) or not isinstance(error, RunqyError)
            if not ends:
                log.warning("The wait continues without one of its sources: %s", error)
                error = None
        else:
            ends = arrival is not None
        if ends or not self._open:
            self._is_over = True
            self._on_end(arrival, error)

    def _is_required(self, ended: Wait) -> bool:
        return any(each is ended and required for _, each, required in self._waits)
