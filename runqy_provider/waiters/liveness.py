# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Progress and signs of life of one job, while its delivery is waited for."""

from __future__ import annotations

import dataclasses
import math
import time
from typing import TYPE_CHECKING, Protocol

from runqy_provider.sanitize import storable
from runqy_provider.waiters.source import StatusUpdate

if TYPE_CHECKING:
    from collections.abc import Callable

#: Seconds between two lines of progress in a task's log.
PROGRESS_INTERVAL = 5.0


class Reachable(Protocol):
    """A source that may be unreachable for a while."""

    @property
    def reachable_since(self) -> float:
        """Since when it can be polled, in seconds since 1970.

        0 for always, infinite while it cannot be polled.
        """
        ...


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

    __slots__ = (
        "_has_started",
        "_heartbeat_timeout",
        "_logged",
        "_logged_progress",
        "_next_progress",
        "_on_change",
        "_reported_at",
        "_sources",
        "job",
        "last_sign",
        "progress",
        "refusal",
    )

    def __init__(
        self,
        heartbeat_timeout: float | None = None,
        on_change: Callable[[StatusUpdate], None] = lambda _update: None,
        *,
        is_watched: bool = False,
    ) -> None:
        self._heartbeat_timeout = heartbeat_timeout
        self._on_change = on_change
        self._logged = self._logged_progress = ""
        self._next_progress = 0.0
        self._has_started = not is_watched
        self._reported_at: float | None = None
        self._sources: tuple[Reachable, ...] = ()
        self.last_sign = time.time()
        #: The last progress that the task code reported.
        self.progress = ""
        #: What was last observed of the job.
        self.job = ""
        #: Why a delivery of the job was refused; empty where none was.
        self.refusal = ""

    @property
    def silent_at(self) -> float:
        """When the job will count as silent, in seconds since 1970."""
        timeout = self._heartbeat_timeout
        if timeout is None or not self._has_started:
            return math.inf
        # Signs of life may be lost while a source cannot be polled.
        since = max((source.reachable_since for source in self._sources), default=0.0)
        return max(self.last_sign, since) + timeout

    @property
    def is_silent(self) -> bool:
        """Whether the job has been silent for too long."""
        return time.time() >= self.silent_at

    def on_update(self, update: StatusUpdate) -> None:
        """Record an update, and pass it on where it is new; progress not too often."""
        self._record_sign(update)
        refusal = storable(update.refusal)
        if refusal and refusal != self.refusal:
            self.refusal = refusal
            self._on_change(StatusUpdate(refusal))
        message = storable(update.message)
        if update.is_progress:
            self.progress = message
        else:
            self.job = message
        logged = self._logged_progress if update.is_progress else self._logged
        if not message or message == logged:
            return
        if update.is_progress:
            now = time.monotonic()
            if now < self._next_progress:
                return
            self._next_progress = now + PROGRESS_INTERVAL
            self._logged_progress = message
        else:
            self._logged = message
        self._on_change(dataclasses.replace(update, message=message))

    def add_source(self, source: Reachable) -> None:
        """Let silence count only while this source, too, can be polled."""
        if self._heartbeat_timeout is not None and source not in self._sources:
            self._sources = (*self._sources, source)

    def _record_sign(self, update: StatusUpdate) -> None:
        """Record a sign of life, at the time by our clock: others may be wrong."""
        at, has_started = update.reported_at, update.has_started
        if at is not None and at != self._reported_at:
            self._reported_at, self._has_started = at, True
            self.last_sign = time.time()
        elif has_started is False or (has_started and not self._has_started):
            self._has_started = has_started
            self.last_sign = time.time()
