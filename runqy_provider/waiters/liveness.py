# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Progress and signs of life of one job, while its delivery is waited for."""

from __future__ import annotations

import dataclasses
import math
import time
from typing import TYPE_CHECKING

from runqy_provider.sanitize import storable

if TYPE_CHECKING:
    from collections.abc import Callable

    from runqy_provider.waiters.source import StatusUpdate

#: Seconds between two lines of progress in a task's log.
PROGRESS_INTERVAL = 5.0


class LivenessMonitor:
    """Tracks one job; all sources at which its delivery is waited for share it.

    Silence counts only once the job has started, and only while all sources can be
    polled: a sign of life may be in one that cannot.

    Args:
        heartbeat_timeout: Seconds without a sign of life after which the job counts as
            silent; None: never.
        on_change: Is called with each update that is new, for the task's log.
        is_watched: Whether the job itself is observed, so that its start will be seen.
            Where it is not, the job counts as started.
    """

    def __init__(
        self,
        heartbeat_timeout: float | None = None,
        on_change: Callable[[StatusUpdate], None] = lambda _update: None,
        *,
        is_watched: bool = False,
    ) -> None:
        self._heartbeat_timeout = heartbeat_timeout
        self._on_change = on_change
        self._logged: dict[bool, str] = {}
        self._next_progress = 0.0
        self._has_started = not is_watched
        self._reported_at: float | None = None
        self._unreachable: set[int] = set()
        self.last_sign = time.time()
        #: The last progress that the task code reported.
        self.progress = ""
        #: What was last observed of the job.
        self.job = ""

    @property
    def silent_at(self) -> float:
        """When the job will count as silent, in seconds since 1970."""
        timeout = self._heartbeat_timeout
        if timeout is None or not self._has_started or self._unreachable:
            return math.inf
        return self.last_sign + timeout

    @property
    def is_silent(self) -> bool:
        """Whether the job has been silent for too long."""
        return time.time() >= self.silent_at

    def on_update(self, update: StatusUpdate) -> None:
        """Record an update, and pass it on where it is new; progress not too often."""
        self._record_sign(update)
        message = storable(update.message)
        if update.is_progress:
            self.progress = message
        else:
            self.job = message
        if not message or message == self._logged.get(update.is_progress):
            return
        now = time.monotonic()
        if update.is_progress and now < self._next_progress:
            return
        if update.is_progress:
            self._next_progress = now + PROGRESS_INTERVAL
        self._logged[update.is_progress] = message
        self._on_change(dataclasses.replace(update, message=message))

    def mark_unreachable(self, source: object) -> None:
        """Record that a source cannot be polled."""
        self._unreachable.add(id(source))

    def mark_reachable(self, source: object) -> None:
        """Record that a source was polled; signs of life meanwhile may be lost."""
        if id(source) in self._unreachable:
            self._unreachable.discard(id(source))
            self.last_sign = time.time()

    def _record_sign(self, update: StatusUpdate) -> None:
        """Record a sign of life, at the time by our clock: others may be wrong."""
        at, has_started = update.reported_at, update.has_started
        if at is not None and at != self._reported_at:
            self._reported_at, self._has_started = at, True
            self.last_sign = time.time()
        elif has_started is False or (has_started and not self._has_started):
            self._has_started = has_started
            self.last_sign = time.time()
