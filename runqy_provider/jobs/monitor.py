# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The job watch: jobs that end, or are gone, without a delivery.

Task code that dies never delivers, and runqy then forgets the job. So the jobs
themselves are looked at too: rarely, and all at once.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from runqy_provider.client import models as states
from runqy_provider.client.job_status import JobSight, RedisLookout, lookout
from runqy_provider.errors import (
    JobFailed,
    JobVanished,
    NoAccess,
    Rejected,
    SinkUnavailable,
)
from runqy_provider.sinks.redis_storage import JobAddress
from runqy_provider.waiters.source import Answer, News, Place
from runqy_provider.waiters.waiter import Waiter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Mapping

    from runqy_provider.client.job_status import Lookout
    from runqy_provider.context import Access
    from runqy_provider.models import Ticket

#: States in which a job waits for a worker.
WAITING = (states.PENDING, states.SCHEDULED, states.RETRY)

#: Of a job that is active, though its worker has let its lease run out.
LOST = "lost"

#: Seconds after which an ended job that nobody asks for is forgotten.
FORGET_AFTER = 600.0

#: The longest text of an error that is told, in characters.
LONGEST_ERROR = 2000


def watch_place(access: Access, ticket: Ticket) -> Place | None:
    """Return where to watch a job; None where it is not known, or not wanted."""
    queue, job_id = ticket.runqy_queue, ticket.job_id
    if queue is None or job_id is None or not access.watch:
        return None
    settings, redis = access.settings, access.runqy_redis
    address = JobAddress(settings.conn_id, queue, job_id, ticket.delivery_id)

    def make() -> Waiter:
        watch = JobWatch(lookout(settings, redis), access.vanished_grace)
        return Waiter(watch, access.watch)

    return Place(("job watch", redis or settings), make, str(address))


class JobWatch:
    """Watches jobs; addresses are those of results that runqy stores.

    Args:
        lookout: Looks at jobs.
        grace: Seconds between a job's end and the verdict that it delivered nothing:
            a delivery may be on its way.
    """

    def __init__(self, lookout: Lookout, grace: float) -> None:
        self._lookout = lookout
        self._grace = grace
        self._ended: dict[str, float] = {}
        self._verdicts: asyncio.Queue[tuple[float, str]] = asyncio.Queue()

    async def look(self, addresses: Collection[str]) -> Mapping[str, Answer]:
        """Look at all of them.

        Raises:
            SinkUnavailable: Nobody answers, or refuses to: the watch is a second pair
                of eyes, and what closes them ends no wait.
        """
        jobs = {text: JobAddress.parse(text) for text in addresses}
        try:
            seen = await self._lookout.look([at.job for at in jobs.values()])
            served = await self._lookout.served()
            active = [job for job, sight in seen.items() if _is_active(sight)]
            lost = await self._lookout.lost(active) if active else set()
        except (Rejected, NoAccess) as error:
            raise SinkUnavailable(str(error)) from error
        for job in lost:
            seen[job] = JobSight(LOST)
        return {
            text: self._judge(text, at, seen[at.job], served)
            for text, at in jobs.items()
            if at.job in seen
        }

    async def hints(self) -> AsyncIterator[str | None]:
        """Yield those whose grace is over."""
        while True:
            when, text = await self._verdicts.get()
            await asyncio.sleep(max(0.0, when - time.time()))
            yield text

    async def aclose(self) -> None:
        """Let go of connections, and of what was seen."""
        self._ended.clear()
        self._verdicts = asyncio.Queue()
        await self._lookout.aclose()

    def _judge(
        self, text: str, at: JobAddress, seen: JobSight | None, served: set[str] | None
    ) -> Answer:
        if seen is not None and seen.state == states.ARCHIVED:
            return JobFailed(
                f"The job failed: runqy gave job {at.job_id} up after {seen.retried} "
                f"retries, and nothing was delivered. {self._why(seen)}"
            )
        if seen is None or seen.state == states.COMPLETED:
            return self._ended_without(text, at, seen)
        self._ended.pop(text, None)
        is_served = served is None or at.runqy_queue in served
        if seen.state == LOST or (seen.state not in WAITING and not is_served):
            return self._lost(at, is_served=is_served)
        if seen.state not in WAITING:
            return News(has_begun=True)
        if seen.state == states.RETRY:
            words = (
                f"Job {at.job_id} is to be run again by runqy (retry {seen.retried}): "
                f"its handler raised, or its worker was lost. {self._why(seen)}"
            )
        elif not is_served:
            words = (
                f"Job {at.job_id} is {seen.state}, and no live worker serves the "
                f"queue {at.runqy_queue!r}: start one, or wait for one. (Seen in "
                f"{self._lookout.place}.)"
            )
        else:
            words = ""
        return News(words, has_begun=False)

    def _lost(self, at: JobAddress, *, is_served: bool) -> News:
        if is_served:
            why = "its lease is over"
            then = "another one that serves the queue takes it back soon"
        else:
            why = f"no live worker serves the queue {at.runqy_queue!r}"
            then = "another one gets it when its lease is over: start one"
        return News(
            f"Job {at.job_id} is {states.ACTIVE}, but {why}: its worker was lost. "
            f"runqy runs the job again; {then}. (Seen in {self._lookout.place}.)",
            has_begun=True,
        )

    def _ended_without(
        self, text: str, at: JobAddress, seen: JobSight | None
    ) -> Answer:
        now = time.time()
        since = self._ended.get(text)
        if since is None:
            self._forget_old(now)
            since = self._ended[text] = now
            self._verdicts.put_nowait((now + self._grace, text))
        what = "has forgotten the job" if seen is None else "says it is completed"
        if now - since < self._grace:
            # Nothing to say yet: most often the delivery is there, and kept back.
            return News()
        # Should the wait go on all the same, it gets a grace anew.
        del self._ended[text]
        return JobVanished(
            f"Job {at.job_id} in queue {at.runqy_queue!r} ended, or died, without "
            f"delivering: {self._lookout.place} {what} since {_clock(since)}, and "
            f"nothing came in the {self._grace:g} s after. Its task code returned "
            "without delivering, was refused, or failed at every retry; or the job was "
            "deleted. See the log of the runqy worker."
        )

    def _forget_old(self, now: float) -> None:
        """Forget those whose delivery came in time, so that nobody asked again."""
        oldest = now - self._grace - FORGET_AFTER
        self._ended = {text: at for text, at in self._ended.items() if at > oldest}

    def _why(self, seen: JobSight) -> str:
        if seen.error:
            return f"runqy says: {seen.error[:LONGEST_ERROR]}"
        if isinstance(self._lookout, RedisLookout):
            return "The log of the runqy worker says why."
        return (
            "runqy's API does not say why: name runqy's own Redis in the connection, "
            "or see the worker's log."
        )


def _is_active(seen: JobSight | None) -> bool:
    return seen is not None and seen.state == states.ACTIVE


def _clock(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))
