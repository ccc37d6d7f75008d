# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""What is seen of many jobs at one look: in runqy's Redis, or by asking the server."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

from runqy_provider.client import requests as calls
from runqy_provider.client import transport as http
from runqy_provider.client.redis_keys import (
    WORKERS,
    hash_key,
    lease_key,
    queues_of,
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
    from collections.abc import Collection, Sequence

    import httpx
    from redis.asyncio import Redis

    from runqy_provider.connections import RedisSettings, RunqySettings
    from runqy_provider.errors import RunqyError

#: How many jobs the server is asked about at once.
AT_ONCE = 4

#: Seconds for which a lease may be over before its job is called lost.
LEASE_MARGIN = 5.0


@dataclass(frozen=True)
class JobSight:
    """A job as it was just seen.

    Attributes:
        state: As runqy names it.
        error: Text of its last error; empty where there is none, or nobody says.
        retried: How often it was run again.
        ended_at: When it was completed, in seconds since 1970; None where it was not,
            or nobody says.
    """

    state: str
    error: str = ""
    retried: int = 0
    ended_at: float | None = None


#: Jobs by queue and id; None for one that is gone.
Seen = dict[tuple[str, str], JobSight | None]


class Lookout(Protocol):
    """Looks at jobs."""

    @property
    def place(self) -> str:
        """Where it looks, for messages."""
        ...

    async def look(self, jobs: Collection[tuple[str, str]]) -> Seen:
        """Look at jobs, each a queue and an id.

        Returns:
            What is seen of each; a job that nobody answers for is left out.

        Raises:
            SinkUnavailable: Nobody answers at all.
        """
        ...

    async def served(self) -> set[str] | None:
        """Return the queues that a live worker serves; None where nobody says."""
        ...

    async def lost(self, jobs: Collection[tuple[str, str]]) -> set[tuple[str, str]]:
        """Return those active jobs whose worker has let its lease run out."""
        ...

    async def aclose(self) -> None:
        """Let go of connections; a later look opens another."""
        ...


#: What is looked at of a job in Redis.
FIELDS = ("state", "error_msg", "retried", "completed_at")


def _of_row(row: Sequence[bytes | None]) -> JobSight | None:
    state, error, retried, ended_at = row
    if state is None:
        return None
    return JobSight(
        state.decode(),
        (error or b"").decode("utf-8", "replace"),
        int(retried or 0),
        float(ended_at) if ended_at else None,
    )


class RedisLookout:
    """Looks into runqy's own Redis: one round trip for any number of jobs.

    Args:
        settings: How to reach it.
    """

    def __init__(self, settings: RedisSettings) -> None:
        self._settings = settings
        self._opened: Redis | None = None

    @property
    def place(self) -> str:
        """Where it looks."""
        return f"runqy's Redis at {self._settings.address}"

    async def look(self, jobs: Collection[tuple[str, str]]) -> Seen:
        """Look at all of them; results stay where they are."""
        with redis_errors(self._settings, "look at jobs"):
            async with self._client().pipeline(transaction=False) as pipeline:
                for queue, job_id in jobs:
                    key = hash_key(queue, job_id)
                    pipeline.hmget(key, FIELDS)
                rows = await pipeline.execute()
        return {job: _of_row(row) for job, row in zip(jobs, rows, strict=True)}

    async def served(self) -> set[str]:
        """Ask what the live workers serve."""
        with redis_errors(self._settings, "look at workers"):
            async with self._client().pipeline(transaction=False) as pipeline:
                pipeline.zrange(WORKERS, 0, -1)
                [workers] = await pipeline.execute()
                for name in workers:
                    pipeline.hget(worker_key(name.decode()), "queues")
                texts = await pipeline.execute() if workers else []
        alive = [queues_of(text.decode()) for text in texts if text is not None]
        return cast("set[str]", set()).union(*alive)

    async def lost(self, jobs: Collection[tuple[str, str]]) -> set[tuple[str, str]]:
        """Ask until when their workers have them."""
        with redis_errors(self._settings, "look at leases"):
            async with self._client().pipeline(transaction=False) as pipeline:
                for queue, job_id in jobs:
                    pipeline.zscore(lease_key(queue), job_id)
                leases = await pipeline.execute()
        # A lease is as the worker's clock has it, and may be about to be prolonged.
        over = time.time() - LEASE_MARGIN
        return {
            job
            for job, until in zip(jobs, leases, strict=True)
            if until is not None and until < over
        }

    async def aclose(self) -> None:
        """Close the connection."""
        client, self._opened = self._opened, None
        if client is not None:
            await client.aclose()

    def _client(self) -> Redis:
        if self._opened is None:
            self._opened = async_client(self._settings, most_connections=1)
        return self._opened


class ServerLookout:
    """Asks the server about each job, a few at once; the API says no errors.

    Args:
        settings: The runqy connection.
    """

    def __init__(self, settings: RunqySettings) -> None:
        self._settings = settings
        self._opened: httpx.AsyncClient | None = None

    @property
    def place(self) -> str:
        """Where it looks."""
        return f"runqy at {self._settings.server_url}"

    async def look(self, jobs: Collection[tuple[str, str]]) -> Seen:
        """Ask about each of them."""
        turns = asyncio.Semaphore(AT_ONCE)
        troubles: list[RunqyError] = []
        seen: Seen = {}

        async def ask(job: tuple[str, str]) -> None:
            async with turns:
                # One that is away is not asked a thousand times: each may take long.
                if any(isinstance(error, http.Away) for error in troubles):
                    return
                try:
                    seen[job] = await self._ask(job[1])
                except (ServerUnavailable, Rejected) as error:
                    troubles.append(error)

        await asyncio.gather(*(ask(job) for job in jobs))
        if troubles and not seen:
            raise SinkUnavailable(
                f"{self.place} cannot be asked about jobs: {troubles[0]}"
            ) from troubles[0]
        return seen

    async def served(self) -> set[str] | None:
        """Ask what the live workers serve, where a key allows it."""
        if self._settings.admin_key is None:
            return None
        try:
            workers = await http.asend(
                self._client(), calls.list_workers(), self._settings
            )
        except (ServerUnavailable, Rejected):
            return None
        alive = [queues_of(one.queues) for one in workers if not one.is_stale]
        return cast("set[str]", set()).union(*alive)

    async def lost(
        self,
        jobs: Collection[tuple[str, str]],  # noqa: ARG002 - the API does not say
    ) -> set[tuple[str, str]]:
        """Return none: the server says nothing of leases."""
        return set()

    async def aclose(self) -> None:
        """Close the HTTP session."""
        client, self._opened = self._opened, None
        if client is not None:
            await client.aclose()

    async def _ask(self, job_id: str) -> JobSight | None:
        # Its troubles are told to all who wait, so they name no job.
        call = dataclasses.replace(calls.get_job(job_id), what="look at jobs")
        try:
            job = await http.asend(self._client(), call, self._settings)
        except JobVanished:
            return None
        return JobSight(job.state, retried=job.retried)

    def _client(self) -> httpx.AsyncClient:
        if self._opened is None:
            self._opened = http.open_async_client(self._settings, AT_ONCE)
        return self._opened


def lookout(settings: RunqySettings, redis: RedisSettings | None) -> Lookout:
    """Return one that looks into runqy's Redis where that is known, else asks."""
    return ServerLookout(settings) if redis is None else RedisLookout(redis)
