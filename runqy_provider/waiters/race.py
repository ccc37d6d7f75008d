# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""One wait at each of several sources, of which the first to end counts."""

from __future__ import annotations

import abc
import logging
from typing import TYPE_CHECKING

from runqy_provider.errors import RunqyError
from runqy_provider.waiters.registry import shared_waiter
from runqy_provider.waiters.wait import Wait

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runqy_provider.waiters.liveness import LivenessMonitor
    from runqy_provider.waiters.registry import WaitTarget
    from runqy_provider.waiters.source import Arrival

log = logging.getLogger(__name__)


class Race(abc.ABC):
    """Waits for one delivery at several sources: no tasks, as there may be thousands.

    The first arrival ends it, and the first error; but an error of a source that is not
    required does not, unless it is a fault in the program. The deadline ends it where
    all waits have ended.

    Args:
        targets: The sources; their waiters are shared with all other waits.
        monitor: The source that observes the job itself.
        deadline: When to give up, in seconds since 1970.
        liveness: Receives status updates, and says when the job is silent.
    """

    __slots__ = ("_is_over", "_open", "_waits")

    def __init__(
        self,
        targets: Sequence[WaitTarget],
        monitor: WaitTarget | None,
        deadline: float,
        liveness: LivenessMonitor,
    ) -> None:
        all_targets = (*targets, *([monitor] if monitor else ()))
        self._is_over = False
        self._open = len(all_targets)
        on_end = self._on_wait_end
        self._waits = [
            Wait(target.key, deadline, liveness, on_end, target.is_required)
            for target in all_targets
        ]
        for target, wait in zip(all_targets, self._waits, strict=True):
            shared_waiter(target.waiter_factory).add(wait)

    @abc.abstractmethod
    def _ended(self, arrival: Arrival | None, error: BaseException | None) -> None:
        """Take the end, once: the arrival (None at the deadline) and the error."""

    def close(self) -> None:
        """Forget the waits, whether they have ended or not."""
        self._is_over = True
        for wait in self._waits:
            wait.forget()
        self._waits.clear()  # or they and the race would keep each other in memory

    def _on_wait_end(
        self, wait: Wait, arrival: Arrival | None, error: BaseException | None
    ) -> None:
        self._open -= 1
        if self._is_over:
            return
        if arrival is None and error is not None:
            ends = wait.is_required or not isinstance(error, RunqyError)
            if not ends:
                log.warning("The wait continues without one of its sources: %s", error)
                error = None
        else:
            ends = arrival is not None
        if ends or not self._open:
            self._is_over = True
            self._ended(arrival, error)
