# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""What one wait hears while it goes on, and how long it bears silence."""

from __future__ import annotations

import dataclasses
import math
import time
from typing import TYPE_CHECKING

from runqy_provider.sanitize import storable

if TYPE_CHECKING:
    from collections.abc import Callable

    from runqy_provider.waiters.source import News

#: Seconds between two lines of progress in a task's log.
PROGRESS_PAUSE = 5.0


class Vigil:
    """Shared by all places at which one delivery is waited for.

    Silence counts only once the job has begun, and only while all places can be looked
    at: where nobody can hear, nothing can be told from silence.

    Args:
        heartbeat: Seconds without a sign of life after which the wait ends; None: it
            bears any silence.
        tell: Is told what is new, for the log of the waiting task.
        is_watched: True where the job itself is watched, so that it will be seen to
            begin; False: it counts as begun.
    """

    def __init__(
        self,
        heartbeat: float | None = None,
        tell: Callable[[News], None] = lambda _news: None,
        *,
        is_watched: bool = False,
    ) -> None:
        self._heartbeat = heartbeat
        self._tell = tell
        self._told: dict[bool, str] = {}
        self._next_line = 0.0
        self._has_begun = not is_watched
        self._said_at: float | None = None
        self._lost: set[int] = set()
        self.last_sign = time.time()
        #: The newest words of the task code, and of what was seen from outside.
        self.progress = ""
        self.job = ""

    @property
    def silent_at(self) -> float:
        """When the silence will have been too long, in seconds since 1970."""
        if self._heartbeat is None or not self._has_begun or self._lost:
            return math.inf
        return self.last_sign + self._heartbeat

    @property
    def is_silent(self) -> bool:
        """True once the silence has been too long."""
        return time.time() >= self.silent_at

    def hear(self, news: News) -> None:
        """Take news in, and pass on what is new; progress not too often."""
        self._heed(news)
        words = storable(news.words)
        if news.is_progress:
            self.progress = words
        else:
            self.job = words
        if not words or words == self._told.get(news.is_progress):
            return
        now = time.monotonic()
        if news.is_progress and now < self._next_line:
            return
        if news.is_progress:
            self._next_line = now + PROGRESS_PAUSE
        self._told[news.is_progress] = words
        self._tell(dataclasses.replace(news, words=words))

    def lose(self, place: object) -> None:
        """Note that a place cannot be looked at."""
        self._lost.add(id(place))

    def regain(self, place: object) -> None:
        """Note that a place was looked at; what was said meanwhile may be lost."""
        if id(place) in self._lost:
            self._lost.discard(id(place))
            self.last_sign = time.time()

    def _heed(self, news: News) -> None:
        """Take a sign of life, at the time by our own clock: others' may be off."""
        if news.said_at is not None and news.said_at != self._said_at:
            self._said_at, self._has_begun = news.said_at, True
            self.last_sign = time.time()
        elif news.has_begun is False or (news.has_begun and not self._has_begun):
            self._has_begun = news.has_begun
            self.last_sign = time.time()
