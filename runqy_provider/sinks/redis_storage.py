# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The sink ``redis_storage``: runqy itself keeps the result, with the job, for a day.

For queues that are configured with ``redis_storage: true``.
"""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote, unquote

from runqy_delivery import DeliveryRequest
from runqy_delivery.wire import COMPLETED, FAILED
from runqy_provider.client import models as job
from runqy_provider.client import requests as calls
from runqy_provider.client import transport as http
from runqy_provider.client.job_status import lookout
from runqy_provider.client.redis_keys import hash_key
from runqy_provider.errors import (
    BadDelivery,
    JobVanished,
    Misconfigured,
    NotThere,
    ServerUnavailable,
    SinkUnavailable,
)
from runqy_provider.redis_client import check_size, client, redis_errors
from runqy_provider.sinks.base import Sink
from runqy_provider.sinks.result import parcel_of_value
from runqy_provider.waiters.source import Answer, Arrival, Place
from runqy_provider.waiters.waiter import Waiter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Mapping, Sequence

    from runqy_provider.client.job_status import JobSight, Lookout
    from runqy_provider.connections import RedisSettings
    from runqy_provider.context import Access
    from runqy_provider.models import Ticket
    from runqy_provider.sinks.base import Follow
    from runqy_provider.sinks.result import Parcel

#: The longest line that runqy's worker reads from task code, in bytes.
LONGEST_LINE = 10 * 1024 * 1024

#: What stands around a result on that line, at most.
ENVELOPE = 1024


@dataclass(frozen=True)
class RedisStorageSink(Sink):
    """Results that runqy stores: small ones, for up to a day; the worker needs nothing.

    Looked for in runqy's own Redis where the connection names it (all waits in one
    round trip), else by asking the server job by job.
    """

    @property
    def uri(self) -> str:
        """The sink as a text."""
        return "redis_storage"

    def check(self, access: Access) -> None:
        """Ask whether runqy's Redis can be reached, where we are to look there."""
        if access.runqy_redis is not None:
            with redis_errors(access.runqy_redis, "reach runqy's Redis"):
                redis = client(access.runqy_redis)
                try:
                    redis.ping()
                finally:
                    redis.close()

    def request(
        self,
        access: Access,  # noqa: ARG002 - nothing of it is needed
        delivery_id: str,
        expires: float,  # noqa: ARG002 - nothing expires
    ) -> DeliveryRequest:
        """Ask our helper to hand the result to runqy; others do so anyway."""
        return DeliveryRequest(
            delivery_id, sink="redis_storage", max_bytes=LONGEST_LINE - ENVELOPE
        )

    def where(self, access: Access, delivery_id: str) -> str:  # noqa: ARG002 - see below
        """Refuse: it lies in the job, which is not enqueued yet."""
        raise Misconfigured(
            f"Where runqy will store the result of delivery {delivery_id} is known "
            "only once its job is enqueued."
        )

    def owns(self, where: str) -> bool:
        """True for results in jobs."""
        return where.startswith(SCHEME)

    def places(self, access: Access, ticket: Ticket) -> Sequence[Place]:
        """Return runqy's Redis, or the server that speaks for it."""
        queue, job_id = ticket.job(self.uri)
        address = JobAddress(access.settings.conn_id, queue, job_id, ticket.delivery_id)
        where = access.runqy_redis or access.settings

        def make() -> Waiter:
            source = JobArrivals(lookout(access.settings, access.runqy_redis))
            return Waiter(source, access.poll, access.longest_poll)

        return [Place(("redis_storage", where), make, str(address))]

    def open(self, access: Access, where: str, follow: Follow | None = None) -> Parcel:
        """Read the result from the job."""
        at = JobAddress.parse(where)
        if access.runqy_redis is None:
            value, error, done = self._ask(access, at)
        else:
            value, error, done = _read(access.runqy_redis, at, access.largest_read)
        return parcel_of_value(
            value if error is None else error,
            where,
            done,
            delivery_id=at.delivery_id,
            follow=follow or functools.partial(self.follow, access),
            failed=error is not None,
            is_parsed=access.runqy_redis is None,
        )

    def nothing_arrived(self, access: Access, ticket: Ticket) -> str:
        """Say which job did not end."""
        queue, job_id = ticket.job(self.uri)
        looked = f"asking runqy at {access.settings.server_url}"
        if access.runqy_redis is not None:
            looked = (
                f"runqy's Redis at {access.runqy_redis.address}, key "
                f"{hash_key(queue, job_id)}"
            )
        return (
            f"Job {job_id} in queue {queue!r} has not ended (looked: {looked}). Check "
            "that a worker serves the queue, and the log of the task code."
        )

    def _ask(self, access: Access, at: JobAddress) -> tuple[Any, str | None, float]:
        settings = access.settings
        try:
            with http.open_session(settings) as session:
                found = http.send(session, calls.get_job(at.job_id), settings)
        except ServerUnavailable as error:
            raise SinkUnavailable(str(error)) from error
        if found.state == job.ARCHIVED:
            words = (
                f"runqy gave the job up after {found.retried} retries. Its API does "
                "not say why: name runqy's own Redis in the connection "
                f"{settings.conn_id!r} to read the error here, or see the worker's log."
            )
            return None, words, time.time()
        _check_ended(found.state, at)
        if found.is_garbled:
            raise BadDelivery(
                f"runqy's API garbles the result of job {at.job_id}: it takes a bare "
                "null, true or number for base64. Return an object from the task code, "
                "use our helper there, or name runqy's own Redis in the connection "
                f"{settings.conn_id!r}, where the result stands as it is."
            )
        return found.result, None, time.time()


def _read(
    settings: RedisSettings, at: JobAddress, largest: int | None
) -> tuple[Any, str | None, float]:
    """Return result, error and time of a job in runqy's Redis."""
    key = hash_key(at.runqy_queue, at.job_id)
    fields = ["state", "result", "error_msg", "completed_at", "last_failed_at"]
    redis = client(settings)
    try:
        with redis_errors(settings, "read a job's result"):
            check_size(redis, key, "result", largest)
            row = cast("list[bytes | None]", redis.hmget(key, fields))
    finally:
        redis.close()
    if row[0] is None:
        raise vanished(at, f"key {key} in Redis at {settings.address}")
    state, result, error, completed_at, failed_at = (
        "" if field is None else field.decode("utf-8", "replace") for field in row
    )
    if state == job.ARCHIVED:
        return None, error, float(failed_at or time.time())
    _check_ended(state, at)
    return result or None, None, float(completed_at or time.time())


def _check_ended(state: str, at: JobAddress) -> None:
    if state != job.COMPLETED:
        raise NotThere(
            f"Job {at.job_id} in queue {at.runqy_queue!r} has no result: it is {state} "
            "again."
        )


SCHEME = "redis_storage://"


@dataclass(frozen=True)
class JobAddress:
    """``redis_storage://conn_id/queue/job_id/delivery_id``."""

    conn_id: str
    runqy_queue: str
    job_id: str
    delivery_id: str

    @property
    def job(self) -> tuple[str, str]:
        """The queue and the id of the job."""
        return self.runqy_queue, self.job_id

    def __str__(self) -> str:
        parts = (self.conn_id, self.runqy_queue, self.job_id, self.delivery_id)
        return SCHEME + "/".join(quote(part, safe="") for part in parts)

    @classmethod
    def parse(cls, text: str) -> JobAddress:
        """Read the address.

        Raises:
            Misconfigured: It is none.
        """
        parts = [unquote(part) for part in text.removeprefix(SCHEME).split("/")]
        if not text.startswith(SCHEME) or len(parts) != len(cls.__dataclass_fields__):
            raise Misconfigured(f"{text!r} is no address of a stored result.")
        return cls(*parts)


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
