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

from runqy_delivery import DeliveryRequest
from runqy_provider.errors import (
    BadDelivery,
    Misconfigured,
    NotThere,
    ServerUnavailable,
    SinkUnavailable,
)
from runqy_provider.redis_client import check_size, client, redis_errors
from runqy_provider.server import calls, http, job
from runqy_provider.server.sight import lookout
from runqy_provider.server.stored_jobs import hash_key
from runqy_provider.sinks.base import Access, Place, Sink
from runqy_provider.sinks.job_address import SCHEME, JobAddress
from runqy_provider.sinks.job_arrivals import JobArrivals, vanished
from runqy_provider.sinks.stored import parcel_of_value
from runqy_provider.waiting.waiter import Waiter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runqy_provider.settings import RedisSettings
    from runqy_provider.sinks.base import Follow
    from runqy_provider.sinks.parcel import Parcel
    from runqy_provider.sinks.ticket import Ticket

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
