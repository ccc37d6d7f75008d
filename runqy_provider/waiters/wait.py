# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""One registered wait."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from runqy_provider.waiters.liveness import LivenessMonitor
    from runqy_provider.waiters.source import Arrival
    from runqy_provider.waiters.waiter import Waiter

#: How long an expired wait may delay its end for its first poll, in seconds: a server
#: may accept a request and never answer.
POLL_GRACE = 20.0


# With slots, and without a future or a task of its own: there may be thousands.
@dataclass(eq=False, slots=True)
class Wait:
    """One registered wait; times are seconds since 1970.

    Attributes:
        key: What the source knows the delivery by.
        deadline: When to give up.
        liveness: Receives status updates, and says when the job is silent.
        on_end: Is called once, when the wait ends: with the wait, the arrival (None at
            the deadline) and the error.
        is_required: See ``WaitTarget``.
        waiter: The waiter that it was added to.
        since: When the wait began.
        polled_at: When its source was last polled for it; 0 for never.
        was_polled: Whether a poll was tried, with or without success.
        queued_for: The time at which it stands in the ``DeadlineQueue``.
        is_over: Whether it has ended, or was given up.
    """

    key: str
    deadline: float
    liveness: LivenessMonitor
    on_end: Callable[[Wait, Arrival | None, BaseException | None], None]
    is_required: bool = True
    waiter: Waiter | None = None
    since: float = field(default_factory=time.time)
    polled_at: float = 0.0
    was_polled: bool = False
    queued_for: float | None = None
    is_over: bool = False

    @property
    def due(self) -> float:
        """When this wait ends, unless something arrives."""
        end = min(self.deadline, self.liveness.silent_at)
        return end if self.was_polled else max(end, self.since + POLL_GRACE)

    def forget(self) -> None:
        """Give the wait up, whether it has ended or not."""
        if self.waiter is not None:
            self.waiter.remove(self)

    def end(
        self, arrival: Arrival | None = None, error: BaseException | None = None
    ) -> None:
        """End the wait, unless it has ended before."""
        if not self.is_over:
            self.is_over = True
            self.on_end(self, arrival, error)
