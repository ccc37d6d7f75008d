# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Read the status of many jobs at once: in runqy's Redis, or from the server."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar, cast

from runqy_provider.client import api, models
from runqy_provider.client.queues import (
    WORKERS,
    count_workers,
    hash_key,
    lease_key,
    pending_key,
    reverse_key,
    worker_key,
)
from runqy_provider.errors import (
    JobVanished,
    Rejected,
    ServerUnavailable,
    SinkUnavailable,
)
from runqy_provider.redis_client import async_client, redis_errors

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Collection, Mapping, Sequence

    import requests
    from redis.asyncio import Redis

    from runqy_provider.connections import RunqyConnection
    from runqy_provider.errors import RunqyError
    from runqy_provider.redis_connection import RedisConnection

T = TypeVar("T")

#: How many requests the server gets at once: each asks about one job.
REQUESTS_AT_ONCE = 4

#: How many jobs are polled at once: the event loop is blocked for some milliseconds.
BATCH = 200

#: States in which a job waits for a worker.
WAITING = (models.PENDING, models.SCHEDULED, models.RETRY)

#: How many of a queue's oldest jobs are searched for one.
MOST_SEARCHED = 1000

#: Seconds after the end of a lease before its job counts as lost.
LEASE_MARGIN = 5.0

#: Our own state of a job that runqy does not know at all: it still knows jobs that
#: ended.
UNKNOWN = "unknown"

#: Seconds since its last poll after which a job is forgotten.
FORGET_AFTER = 600.0

#: Fields of a job in Redis that are read.
FIELDS = ("state", "error_msg", "retried", "completed_at")


@dataclass(frozen=True)
class JobStatus:
    """The status of a job.

    Attributes:
        state: As runqy names it.
        error: Text of its last error; empty if there is none, or if it is not known.
        retried: How often it was run again.
        ended_at: When it was completed, in seconds since 1970; None if it was not, or
            if it is not known.
    """

    state: str
    error: str = ""
    retried: int = 0
    ended_at: float | None = None


@dataclass(frozen=True)
class QueuePosition:
    """Where a pending job is in its queue.

    Attributes:
        ahead: How many jobs come before it; None if that is not known.
        workers: How many live workers serve the queue.
    """

    ahead: int | None
    workers: int


#: Jobs by queue and id; None for a job that is gone.
Seen = dict[tuple[str, str], JobStatus | None]


def is_gone(found: JobStatus | None) -> bool:
    """Return whether a job is gone from runqy."""
    return found is None or found.state == UNKNOWN


class LastSeen:
    """Remembers in which state jobs were last seen, to explain why one is gone."""

    def __init__(self) -> None:
        #: By the caller's key of a job; the job that was polled last is at the end.
        self._jobs: dict[str, tuple[str, float]] = {}

    def update(self, found: Mapping[str, JobStatus | None]) -> None:
        """Record the states of some jobs; a job that is gone keeps its last state."""
        now = time.time()
        # One object for each state, as there may be thousands of jobs.
        states: dict[str, tuple[str, float]] = {}
        for job, status in found.items():
            known = self._jobs.pop(job, None)
            if status is not None and not is_gone(status):
                known = states.setdefault(status.state, (status.state, now))
            if known is not None:
                self._jobs[job] = known
        while self._jobs:
            oldest = next(iter(self._jobs))
            if now - self._jobs[oldest][1] <= FORGET_AFTER:
                return
            del self._jobs[oldest]

    def explain(self, job: str, found: JobStatus | None) -> str:
        """Describe the last known state of a job that is gone, and what that means."""
        state, at = self._jobs.get(job, ("", 0.0))
        seen = (
            f"It was {state} when last seen {time.time() - at:.0f} s ago" if at else ""
        )
        if found is not None and found.state == UNKNOWN:
            lost = "runqy does not know it now: runqy's Redis was emptied, or replaced"
            ran = ". It has probably not run" if state in WAITING else ""
            return (
                f"{seen}, and {lost}{ran}." if seen else f"{lost[0].upper()}{lost[1:]}."
            )
        if state in WAITING:
            return f"{seen}: it has run and ended since, or it was deleted."
        return f"{seen}." if seen else ""

    def clear(self) -> None:
        self._jobs.clear()


class JobStatusReader(Protocol):
    """Reads the status of jobs."""

    @property
    def location(self) -> str:
        """What is read, for messages."""

    async def poll(self, jobs: Collection[tuple[str, str]]) -> Seen:
        """Read the status of jobs, each a queue and an id.

        Returns:
            The status of each, ``UNKNOWN`` for a job that runqy does not know; jobs for
            which there was no response are left out.

        Raises:
            SinkUnavailable: There was no response at all.
        """

    async def served_queues(self) -> Counter[str] | None:
        """Return how many live workers serve each queue; None if not known."""

    async def jobs_ahead(
        self, jobs: Collection[tuple[str, str]]
    ) -> Mapping[tuple[str, str], int]:
        """Return how many jobs come before each pending job, if that is known."""

    async def expired_leases(
        self, jobs: Collection[tuple[str, str]]
    ) -> set[tuple[str, str]]:
        """Return those active jobs whose lease has expired."""

    async def aclose(self) -> None:
        """Close the connections; a later poll opens another."""


def _of_row(row: Sequence[bytes | None]) -> JobStatus | None:
    state, error, retried, ended_at = row
    if state is None:
        return None
    return JobStatus(
        state.decode(),
        (error or b"").decode("utf-8", "replace"),
        int(retried or 0),
        float(ended_at) if ended_at else None,
    )


async def aread_workers(client: Redis) -> Counter[str]:
    """Return how many live workers serve each queue, in two round trips.

    Args:
        client: A client of runqy's own Redis.

    Raises:
        RedisError: Redis is unavailable, or denies access.
    """
    workers = cast("list[bytes]", await client.zrange(WORKERS, 0, -1))
    async with client.pipeline(transaction=False) as pipeline:
        for worker_id in workers:
            pipeline.hget(worker_key(worker_id.decode()), "queues")
        return count_workers(await pipeline.execute())


class RedisJobStatusReader:
    """Reads runqy's own Redis: one round trip for any number of jobs.

    Args:
        connection: runqy's Redis.
    """

    def __init__(self, connection: RedisConnection) -> None:
        self._connection = connection
        self._opened: Redis | None = None

    @property
    def location(self) -> str:
        return f"runqy's Redis at {self._connection.address}"

    async def poll(self, jobs: Collection[tuple[str, str]]) -> Seen:
        """Read the status of all of them; results are not read."""
        with redis_errors(self._connection, "look at jobs"):
            async with self._client().pipeline(transaction=False) as pipeline:
                for queue, job_id in jobs:
                    key = hash_key(queue, job_id)
                    pipeline.hmget(key, FIELDS)
                rows = await pipeline.execute()
            found = {job: _of_row(row) for job, row in zip(jobs, rows, strict=True)}
            gone = [job for job, status in found.items() if status is None]
            if gone:
                async with self._client().pipeline(transaction=False) as pipeline:
                    for _, job_id in gone:
                        pipeline.exists(reverse_key(job_id))
                    traces = await pipeline.execute()
                for job, has_trace in zip(gone, traces, strict=True):
                    found[job] = None if has_trace else JobStatus(UNKNOWN)
        return found

    async def served_queues(self) -> Counter[str]:
        """Read which queues the live workers serve."""
        with redis_errors(self._connection, "look at workers"):
            return await aread_workers(self._client())

    async def jobs_ahead(
        self, jobs: Collection[tuple[str, str]]
    ) -> Mapping[tuple[str, str], int]:
        """Search the oldest jobs of each queue for these."""
        with redis_errors(self._connection, "look at queues"):
            async with self._client().pipeline(transaction=False) as pipeline:
                for queue, job_id in jobs:
                    # Workers take from the end of the list.
                    key = pending_key(queue)
                    pipeline.lpos(key, job_id, rank=-1, maxlen=MOST_SEARCHED)
                    pipeline.llen(key)
                found = await pipeline.execute()
        pairs = zip(jobs, found[::2], found[1::2], strict=True)
        return {
            job: length - index - 1 for job, index, length in pairs if index is not None
        }

    async def expired_leases(
        self, jobs: Collection[tuple[str, str]]
    ) -> set[tuple[str, str]]:
        with redis_errors(self._connection, "look at leases"):
            async with self._client().pipeline(transaction=False) as pipeline:
                for queue, job_id in jobs:
                    pipeline.zscore(lease_key(queue), job_id)
                leases = await pipeline.execute()
        # A lease uses the worker's clock, and may be extended soon.
        over = time.time() - LEASE_MARGIN
        return {
            job
            for job, until in zip(jobs, leases, strict=True)
            if until is not None and until < over
        }

    async def aclose(self) -> None:
        client, self._opened = self._opened, None
        if client is not None:
            await client.aclose()

    def _client(self) -> Redis:
        if self._opened is None:
            self._opened = async_client(self._connection, most_connections=1)
        return self._opened


class ApiJobStatusReader:
    """Asks the server about each job, a few at once; its API has no error texts.

    Args:
        connection: The runqy connection.
    """

    def __init__(self, connection: RunqyConnection) -> None:
        self._connection = connection
        self._opened: requests.Session | None = None

    @property
    def location(self) -> str:
        return f"runqy at {self._connection.server_url}"

    async def poll(self, jobs: Collection[tuple[str, str]]) -> Seen:
        turns = asyncio.Semaphore(REQUESTS_AT_ONCE)
        errors: list[RunqyError] = []
        seen: Seen = {}

        async def ask(job: tuple[str, str]) -> None:
            async with turns:
                # If the server is unavailable, stop: a thousand failing requests take
                # long.
                if any(isinstance(error, api.RetryableServerError) for error in errors):
                    return
                try:
                    seen[job] = await self._ask(job[1])
                except (ServerUnavailable, Rejected) as error:
                    errors.append(error)

        await asyncio.gather(*(ask(job) for job in jobs))
        if errors and not seen:
            raise SinkUnavailable(
                f"{self.location} cannot be asked about jobs: {errors[0]}"
            ) from errors[0]
        return seen

    async def served_queues(self) -> Counter[str] | None:
        """Ask which queues the live workers serve, if there is an admin key."""
        if self._connection.admin_key is None:
            return None
        try:
            workers = await self._send(api.list_workers())
        except (ServerUnavailable, Rejected):
            return None
        return count_workers(one.queues for one in workers if not one.is_stale)

    async def jobs_ahead(
        self,
        jobs: Collection[tuple[str, str]],  # noqa: ARG002 - the API does not say
    ) -> Mapping[tuple[str, str], int]:
        """Return none: the API says nothing about positions."""
        return {}

    async def expired_leases(
        self,
        jobs: Collection[tuple[str, str]],  # noqa: ARG002 - the API does not say
    ) -> set[tuple[str, str]]:
        """Return none: the API says nothing about leases."""
        return set()

    async def aclose(self) -> None:
        session, self._opened = self._opened, None
        if session is not None:
            session.close()

    async def _ask(self, job_id: str) -> JobStatus | None:
        # The errors go to the logs of all waits, so they must not name a job.
        request = dataclasses.replace(api.get_job(job_id), what="look at jobs")
        try:
            job = await self._send(request)
        except JobVanished as error:
            return None if error.has_trace else JobStatus(UNKNOWN)
        return JobStatus(job.state, retried=job.retried)

    async def _send(self, request: api.ApiRequest[T]) -> T:
        if self._opened is None:
            self._opened = api.open_session(self._connection)
        return await asyncio.to_thread(
            api.send, self._opened, request, self._connection
        )


def job_status_reader(
    connection: RunqyConnection, redis: RedisConnection | None
) -> JobStatusReader:
    """Return a reader of runqy's Redis if that is known, else of its API."""
    return (
        ApiJobStatusReader(connection) if redis is None else RedisJobStatusReader(redis)
    )
