# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Report jobs that stay pending: rarely, so that the log of a long wait stays short."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from runqy_provider.client.job_status import QueuePosition

#: Seconds for which a job may be pending before its task's log mentions it.
SLOW_AFTER = 30.0

#: The next report comes when the job has been pending for this many times as long.
GROWTH = 2.0

#: Seconds after which a job that is not looked at any more is forgotten.
FORGET_AFTER = 600.0

#: How many jobs are asked about in one poll: finding a position takes time in Redis.
MOST_AT_ONCE = 100


@dataclass(slots=True)
class Pending:
    """A job that has been pending since ``since``; it is reported at ``due``.

    Times are in seconds since 1970. ``is_exact`` says whether ``since`` is when the job
    was enqueued, and not when it was first seen.
    """

    since: float
    due: float
    seen: float
    is_exact: bool = False
    message: str = ""


class PendingJobs:
    """Remembers since when jobs are pending, and what was last reported of them."""

    def __init__(self) -> None:
        #: In the order in which they were last seen.
        self._jobs: dict[str, Pending] = {}

    def update(
        self, polled: Collection[str], pending: Mapping[str, float]
    ) -> list[str]:
        """Record which of the jobs are pending now.

        Args:
            polled: The jobs that were looked at: some of all.
            pending: Those of them that are pending, and since when, in seconds since
                1970; 0 where that is not known.

        Returns:
            Those that are to be reported now.
        """
        now = time.time()
        known = {job: self._jobs.pop(job, None) for job in polled}
        for job, at in pending.items():
            # A clock of another machine may be ahead of ours.
            since = min(at, now) if at else now
            each = known.get(job) or Pending(since, since + SLOW_AFTER, now, at > 0)
            each.seen = now
            self._jobs[job] = each
        self._forget_old(now)
        due = [job for job in pending if self._jobs[job].due <= now]
        return due[:MOST_AT_ONCE]

    def _forget_old(self, now: float) -> None:
        """Forget jobs that are not looked at any more."""
        while self._jobs:
            oldest = next(iter(self._jobs))
            if now - self._jobs[oldest].seen <= FORGET_AFTER:
                return
            del self._jobs[oldest]

    def report(
        self, job: str, job_id: str, runqy_queue: str, position: QueuePosition | None
    ) -> None:
        """Make the report of a job, which stays until the next one."""
        known, now = self._jobs[job], time.time()
        waited = now - known.since
        known.due = known.since + waited * GROWTH
        least = "" if known.is_exact else "at least "
        since = f"Job {job_id} has been pending for {least}{waited:.0f} s"
        if position is None:
            known.message = (
                f"{since}. Check that a runqy worker serves the queue {runqy_queue!r}. "
                "(To see that here, enter an admin key or runqy's own Redis in the "
                "connection.)"
            )
            return
        ahead = "" if position.ahead is None else f", {position.ahead} jobs before it"
        known.message = (
            f"{since} in the queue {runqy_queue!r}{ahead}. Live workers of the queue: "
            f"{position.workers}."
        )

    def message(self, job: str) -> str:
        """Return the last report of a job; an empty text where there is none yet."""
        known = self._jobs.get(job)
        return "" if known is None else known.message
