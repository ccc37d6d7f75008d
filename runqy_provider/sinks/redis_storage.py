# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The sink ``redis_storage``: runqy itself keeps the result, with the job, for a day.

For queues that are configured with ``redis_storage: true``.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, cast
from urllib.parse import quote, unquote

from runqy_delivery import DeliveryRequest
from runqy_delivery.wire import COMPLETED, FAILED
from runqy_provider.client import api
from runqy_provider.client import models as job_states
from runqy_provider.client.job_status import (
    BATCH,
    LastSeen,
    is_gone,
    job_status_reader,
)
from runqy_provider.client.queues import hash_key
from runqy_provider.errors import (
    BadDelivery,
    JobVanished,
    Misconfigured,
    NotThere,
    ServerUnavailable,
    SinkUnavailable,
)
from runqy_provider.redis_client import check_size, opened
from runqy_provider.sinks.base import BoundSink, Sink
from runqy_provider.sinks.result import from_inline_value
from runqy_provider.waiters.source import Arrival, PollResult
from runqy_provider.waiters.waiter import Waiter, WaitTarget

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Mapping, Sequence

    from typing_extensions import Self

    from runqy_provider.client.job_status import JobStatus, JobStatusReader
    from runqy_provider.connections import RunqyConnection
    from runqy_provider.models import JobRef
    from runqy_provider.redis_connection import RedisConnection
    from runqy_provider.settings import Settings
    from runqy_provider.sinks.result import StoredResult, UrlOpener

SCHEME = "redis_storage://"

#: The longest line that runqy's worker reads from task code, in bytes.
MAX_LINE = 10 * 1024 * 1024

#: The most bytes that surround a result on that line.
ENVELOPE = 1024

#: runqy's states that end a job, and the status of the delivery that they mean.
FINAL = {job_states.COMPLETED: COMPLETED, job_states.ARCHIVED: FAILED}


@dataclass(frozen=True)
class RedisStorageSink(Sink):
    """Results that runqy stores: small ones, for up to a day; workers need no access.

    They are read from runqy's own Redis if the connection names it (all waits in one
    round trip), else by one request per job to the server.
    """

    # runqy stores the result after the task code has ended, which is too late to send a
    # notification.
    can_be_combined: ClassVar[bool] = False

    @classmethod
    def from_uri(cls, uri: str) -> Self:
        if uri != "redis_storage":
            raise Misconfigured(f"{uri!r} is not a valid sink. Write 'redis_storage'.")
        return cls()

    @classmethod
    def for_result(cls, uri: str) -> Self:  # noqa: ARG003 - one sink for all
        """Return the sink, which opens the result of any job."""
        return cls()

    @property
    def uri(self) -> str:
        return "redis_storage"

    def bind(self, settings: Settings) -> BoundRedisStorage:
        return BoundRedisStorage(self, settings)


class BoundRedisStorage(BoundSink):
    """The jobs of one runqy server."""

    def check(self) -> None:
        """Check that runqy's Redis can be reached, if the connection names it."""
        redis = self.settings.runqy_redis
        if redis is None:
            return
        with opened(redis, "reach runqy's Redis") as connected:
            connected.ping()

    def request(self, delivery_id: str, expires: float) -> DeliveryRequest:  # noqa: ARG002 - nothing expires
        """Request that our helper returns the result to runqy, as others always do."""
        return DeliveryRequest(
            delivery_id, sink="redis_storage", max_bytes=MAX_LINE - ENVELOPE
        )

    def result_uri(self, delivery_id: str) -> str:
        """Refuse: the result will be in the job, which is not enqueued yet.

        Raises:
            Misconfigured: Always.
        """
        raise Misconfigured(
            f"Where runqy will store the result of delivery {delivery_id} is known "
            "only once its job is enqueued."
        )

    def result_uri_of(self, job: JobRef) -> str:
        """Return the URI of the result in a job."""
        return str(self._uri(job))

    def owns(self, uri: str) -> bool:
        """Return whether a result is stored in a job."""
        return uri.startswith(SCHEME)

    def targets(self, job: JobRef) -> Sequence[WaitTarget]:
        """Return runqy's Redis, or the runqy server."""
        settings = self.settings
        read = settings.runqy_redis or settings.connection
        return [WaitTarget(_WaiterFactory(read, settings), str(self._uri(job)))]

    def open(self, uri: str, open_url: UrlOpener | None = None) -> StoredResult:
        job, redis = JobResultUri.parse(uri), self.settings.runqy_redis
        if redis is None:
            value, error, ended_at = self._from_server(job)
        else:
            limit = self.settings.max_read_bytes
            value, error, ended_at = _from_redis(redis, job, limit)
        return from_inline_value(
            value if error is None else error,
            uri,
            ended_at,
            delivery_id=job.delivery_id,
            open_url=open_url or self.open_url,
            failed=error is not None,
            is_parsed=redis is None,
        )

    def _uri(self, job: JobRef) -> JobResultUri:
        queue, job_id = job.require_job()
        conn_id = self.settings.connection.conn_id
        return JobResultUri(conn_id, queue, job_id, job.delivery_id)

    def describe_timeout(self, job: JobRef) -> str:
        """Say which job did not end."""
        queue, job_id = job.require_job()
        redis = self.settings.runqy_redis
        location = f"runqy at {self.settings.connection.server_url}"
        if redis is not None:
            location = (
                f"runqy's Redis at {redis.address}, key {hash_key(queue, job_id)}"
            )
        return (
            f"Job {job_id} in queue {queue!r} has not ended (looked at: {location}). "
            "Check that a worker serves the queue, and the log of the task code."
        )

    def _from_server(self, job: JobResultUri) -> tuple[Any, str | None, float]:
        """Return result, error and time of a job, as the server says."""
        connection = self.settings.connection
        try:
            found = api.ask(connection, api.get_job(job.job_id))
        except ServerUnavailable as error:
            raise SinkUnavailable(str(error)) from error
        if found.state == job_states.ARCHIVED:
            message = (
                f"runqy gave up the job after {found.retried} retries. Its API does "
                "not say why: name runqy's own Redis in the connection "
                f"{connection.conn_id!r} to read the error here, or see the worker's "
                "log."
            )
            return None, message, time.time()
        _check_completed(found.state, job)
        if found.is_garbled:
            raise BadDelivery(
                f"runqy's API changes the result of job {job.job_id}: it reads a bare "
                "null, true or number as base64. Return an object from the task code, "
                "use our helper there, or name runqy's own Redis in the connection "
                f"{connection.conn_id!r}, where the result is stored unchanged."
            )
        return found.result, None, time.time()


@dataclass(frozen=True)
class JobResultUri:
    """Where runqy stores a result: ``redis_storage://conn_id/queue/job/delivery``.

    Attributes:
        conn_id: The runqy connection.
        runqy_queue: Full name of the queue.
        job_id: runqy's id of the job.
        delivery_id: Our id of the delivery.
    """

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
    def parse(cls, uri: str) -> JobResultUri:
        """Read the URI.

        Raises:
            Misconfigured: It is not the URI of a stored result.
        """
        parts = [unquote(part) for part in uri.removeprefix(SCHEME).split("/")]
        if not uri.startswith(SCHEME) or len(parts) != len(cls.__dataclass_fields__):
            raise Misconfigured(
                f"{uri!r} is not the URI of a result that runqy stores."
            )
        return cls(*parts)


@dataclass(frozen=True, slots=True)
class _WaiterFactory:
    read: RedisConnection | RunqyConnection
    settings: Settings = field(compare=False)

    def __call__(self) -> Waiter:
        context, config = self.settings, self.settings.config
        reader = job_status_reader(context.connection, context.runqy_redis)
        return Waiter(
            JobResultSource(reader),
            config.poll_seconds,
            config.longest_poll_seconds,
            batch=BATCH,
        )


class JobResultSource:
    """Jobs that end; each wait has the URI of a result.

    Args:
        reader: Reads the status of jobs.
    """

    def __init__(self, reader: JobStatusReader) -> None:
        self._reader = reader
        self._last_seen = LastSeen()

    async def poll(self, keys: Collection[str]) -> Mapping[str, PollResult]:
        """Look for all of them at once; results stay where they are."""
        jobs = {uri: JobResultUri.parse(uri) for uri in keys}
        found = await self._reader.poll([job.job for job in jobs.values()])
        states = {uri: found[job.job] for uri, job in jobs.items() if job.job in found}
        self._last_seen.update(states)
        results = {
            uri: self._result(uri, jobs[uri], state) for uri, state in states.items()
        }
        return {uri: result for uri, result in results.items() if result is not None}

    async def hints(self) -> AsyncIterator[str | None]:
        """Yield nothing: runqy gives no hints."""
        return
        yield

    async def aclose(self) -> None:
        """Close the connections, and forget what was seen."""
        self._last_seen.clear()
        await self._reader.aclose()

    def _result(
        self, uri: str, job: JobResultUri, found: JobStatus | None
    ) -> PollResult | None:
        if found is None or is_gone(found):
            seen = self._last_seen.explain(uri, found)
            return _vanished(job, self._reader.location, seen)
        status = FINAL.get(found.state)
        if status is None:
            return None
        return Arrival(status, uri, found.ended_at or time.time())


def _from_redis(
    redis: RedisConnection, job: JobResultUri, max_bytes: int | None
) -> tuple[Any, str | None, float]:
    """Return result, error and time of a job in runqy's Redis."""
    key = hash_key(job.runqy_queue, job.job_id)
    fields = ["state", "result", "error_msg", "completed_at", "last_failed_at"]
    with opened(redis, "read a job's result") as connected:
        check_size(connected, key, "result", max_bytes)
        row = cast("list[bytes | None]", connected.hmget(key, fields))
    if row[0] is None:
        raise _vanished(job, f"key {key} in Redis at {redis.address}")
    state, result, error, completed_at, failed_at = (
        "" if field is None else field.decode("utf-8", "replace") for field in row
    )
    if state == job_states.ARCHIVED:
        return None, error, float(failed_at or time.time())
    _check_completed(state, job)
    return result or None, None, float(completed_at or time.time())


def _check_completed(state: str, job: JobResultUri) -> None:
    if state != job_states.COMPLETED:
        raise NotThere(
            f"Job {job.job_id} in queue {job.runqy_queue!r} has no result: it is "
            f"{state} again."
        )


def _vanished(job: JobResultUri, location: str, seen: str = "") -> JobVanished:
    """Return the error for a job that runqy does not know any more.

    Args:
        job: The job.
        location: Where it was looked for.
        seen: What was last seen of it; empty if it was not seen.
    """
    return JobVanished(
        f"runqy has no job {job.job_id} in queue {job.runqy_queue!r} (looked at: "
        f"{location}).",
        advice=seen
        or "It was deleted, or it expired, or Redis was flushed, or the queue is not "
        "configured with redis_storage: true, so that runqy forgot the job when it "
        "ended.",
    )
