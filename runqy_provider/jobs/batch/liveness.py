# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Signs of life of a batch, and what of its jobs is worth a line in the log."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from runqy_provider.sanitize import storable
from runqy_provider.waiters.liveness import LivenessMonitor
from runqy_provider.waiters.source import StatusUpdate

if TYPE_CHECKING:
    from collections.abc import Callable

#: Seconds between two lines about single jobs: there may be thousands to report.
WARNING_INTERVAL = 300.0


class BatchLiveness(LivenessMonitor):
    """Tracks all jobs of a batch together.

    A delivery, and progress that any job reports, is a sign of life. Silence counts
    only while a job runs: others may have to wait for a worker. The log shows one
    warning about a job, or about a source, in a while, likewise one about a delivery
    that was refused, and no progress of single jobs.

    Args:
        heartbeat_timeout: Seconds without a sign of life after which the batch counts
            as silent; None: never.
        on_change: Is called with each update that is worth a line in the log.
        is_watched: Whether the jobs themselves are observed. Where they are not, they
            count as running.
    """

    __slots__ = ("_is_watched", "_next_refusal", "_next_warning", "_warn")

    def __init__(
        self,
        heartbeat_timeout: float | None,
        on_change: Callable[[StatusUpdate], None],
        *,
        is_watched: bool,
    ) -> None:
        super().__init__(heartbeat_timeout, is_watched=is_watched)
        self._is_watched = is_watched
        self._warn = on_change
        self._next_warning = self._next_refusal = 0.0

    def on_delivery(self) -> None:
        """Record that a job has delivered."""
        self.last_sign = time.time()
        self._has_started = not self._is_watched

    def on_update(self, update: StatusUpdate) -> None:
        """Record an update of one job, or of a source."""
        now = time.monotonic()
        if update.refusal:
            self.refusal = storable(update.refusal)
            # At once, whatever other warning came just before.
            if now >= self._next_refusal:
                self._next_refusal = now + WARNING_INTERVAL
                self._warn(StatusUpdate(self.refusal))
        at = update.reported_at
        if at is not None:
            if self._reported_at is None or at > self._reported_at:
                self._reported_at = at
                self.last_sign = time.time()
            return
        if update.has_started and not self._has_started:
            self._has_started = True
            self.last_sign = time.time()
        if update.message and now >= self._next_warning:
            self._next_warning = now + WARNING_INTERVAL
            self._warn(update)
