# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""What one wait hears while it goes on, and how long it bears silence."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from runqy_provider.waiting.arrival import News

#: Seconds between two lines of progress in a task's log.
PROGRESS_PAUSE = 5.0


class Vigil:
    """Shared by all places at which one delivery is waited for.

    Args:
        heartbeat: Seconds without a sign of life after which the wait ends; None: it
            bears any silence.
        tell: Is told what is new, for the log of the waiting task.
    """

    def __init__(
        self,
        heartbeat: float | None = None,
        tell: Callable[[News], None] = lambda _news: None,
    ) -> None:
        self._heartbeat = heartbeat
        self._tell = tell
        self._told: dict[bool, str] = {}
        self._next_line = 0.0
        self.last_sign = time.time()
        #: The newest words of the task code, and of what was seen from outside.
        self.progress = ""
        self.job = ""

    @property
    def silent_at(self) -> float:
        """When the silence will have been too long, in seconds since 1970."""
        return math.inf if self._heartbeat is None else self.last_sign + self._heartbeat

    @property
    def is_silent(self) -> bool:
        """True once the silence has been too long."""
        return time.time() >= self.silent_at

    def hear(self, news: News) -> None:
        """Take news in, and pass on what is new; progress not too often."""
        if news.alive_at is not None:
            self.last_sign = max(self.last_sign, news.alive_at)
        if news.is_progress:
            self.progress = news.words
        else:
            self.job = news.words
        if not news.words or news.words == self._told.get(news.is_progress):
            return
        now = time.monotonic()
        if news.is_progress and now < self._next_line:
            return
        if news.is_progress:
            self._next_line = now + PROGRESS_PAUSE
        self._told[news.is_progress] = news.words
        self._tell(news)
