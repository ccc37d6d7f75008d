# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""runqy's own storage as a source for a waiter."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from runqy_delivery.wire import COMPLETED, FAILED
from runqy_provider.errors import JobVanished
from runqy_provider.server import job
from runqy_provider.sinks.job_address import JobAddress
from runqy_provider.waiting.arrival import Answer, Arrival

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Mapping

    from runqy_provider.server.sight import JobSight, Lookout

#: runqy's states that end a job, and what they mean for a delivery.
FINAL = {job.COMPLETED: COMPLETED, job.ARCHIVED: FAILED}


class JobArrivals:
    """Finished jobs; addresses are those of results.

    Args:
        lookout: Looks at jobs.
    """

    def __init__(self, lookout: Lookout) -> None:
        self._lookout = lookout

    async def look(self, addresses: Collection[str]) -> Mapping[str, Answer]:
        """Look at all of them; results stay where they are."""
        jobs = {text: JobAddress.parse(text) for text in addresses}
        seen = await self._lookout.look([at.job for at in jobs.values()])
        answers = {
            text: self._answer(text, at, seen[at.job])
            for text, at in jobs.items()
            if at.job in seen
        }
        return {text: answer for text, answer in answers.items() if answer is not None}

    async def hints(self) -> AsyncIterator[str | None]:
        """Yield nothing: runqy does not tell."""
        return
        yield

    async def aclose(self) -> None:
        """Let go of connections."""
        await self._lookout.aclose()

    def _answer(
        self, text: str, at: JobAddress, seen: JobSight | None
    ) -> Answer | None:
        if seen is None:
            return vanished(at, self._lookout.place)
        status = FINAL.get(seen.state)
        if status is None:
            return None
        return Arrival(status, text, seen.ended_at or time.time())


def vanished(at: JobAddress, place: str) -> JobVanished:
    """Return the error for a job that runqy does not know any more."""
    return JobVanished(
        f"runqy has no job {at.job_id} in queue {at.runqy_queue!r} (looked: {place}). "
        "It was deleted, or its time was up, or Redis was flushed, or the queue is not "
        "configured with redis_storage: true, so that runqy forgot the job when it "
        "ended."
    )
