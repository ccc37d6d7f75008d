# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""What is seen of many jobs at one look: in runqy's Redis, or by asking the server."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

import httpx

from runqy_provider.errors import (
    JobVanished,
    NotAllowed,
    ServerUnavailable,
    SinkUnavailable,
)
from runqy_provider.redis_client import async_client, redis_errors
from runqy_provider.server import calls, http
from runqy_provider.server.stored_jobs import WORKERS, hash_key, queues_of, worker_key

if TYPE_CHECKING:
    from collections.abc import Collection

    from redis.asyncio import Redis

    from runqy_provider.settings import RedisSettings, RunqySettings

#: How many jobs the server is asked about at once.
AT_ONCE = 4


@dataclass(frozen=True)
class JobSight:
    """A job as it was just seen.

    Attributes:
        state: As runqy names it.
        error: Text of its last error; empty where there is none, or nobody says.
        retried: How often it was run again.
    """

    state: str
    error: str = ""
    retried: int = 0


@dataclass(frozen=True)
class Sight:
    """One look.

    Attributes:
        jobs: By queue and id; None for a job that is gone, missing where the server
            did not answer for it.
        served: Queues that a live worker serves; None where nobody says.
    """

    jobs: dict[tuple[str, str], JobSight | None]
    served: set[str] | None


class Lookout(Protocol):
    """Looks at jobs."""

    @property
    def place(self) -> str:
        """Where it looks, for messages."""
        ...

    async def look(self, jobs: Collection[tuple[str, str]]) -> Sight:
        """Look at jobs, each a queue and an id.

        Raises:
            SinkUnavailable: Nobody answers.
        """
        ...

    async def aclose(self) -> None:
        """Let go of connections; a later look opens another."""
        ...


class RedisLookout:
    """Looks into runqy's own Redis: two round trips for any number of jobs.

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

    async def look(self, jobs: Collection[tuple[str, str]]) -> Sight:
        """Look at all of them, and at the workers."""
        with redis_errors(self._settings, "look at jobs"):
            async with self._client().pipeline(transaction=False) as pipeline:
                for queue, job_id in jobs:
                    key = hash_key(queue, job_id)
                    pipeline.hmget(key, "state", "error_msg", "retried")
                pipeline.zrange(WORKERS, 0, -1)
                *rows, workers = await pipeline.execute()
                for name in workers:
                    pipeline.hget(worker_key(name.decode()), "queues")
                texts = await pipeline.execute() if workers else []
        seen = {
            job: None
            if state is None
            else JobSight(
                state.decode(),
                (error or b"").decode("utf-8", "replace"),
                int(retried or 0),
            )
            for job, (state, error, retried) in zip(jobs, rows, strict=True)
        }
        alive = [queues_of(text.decode()) for text in texts if text is not None]
        return Sight(seen, set().union(*alive))

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

    async def look(self, jobs: Collection[tuple[str, str]]) -> Sight:
        """Ask about each of them, and about the workers where a key allows it."""
        turns = asyncio.Semaphore(AT_ONCE)

        async def ask(job_id: str) -> JobSight | ServerUnavailable | None:
            async with turns:
                return await self._ask(job_id)

        found = await asyncio.gather(*(ask(job_id) for _, job_id in jobs))
        away = [one for one in found if isinstance(one, ServerUnavailable)]
        if away and len(away) == len(found):
            raise SinkUnavailable(str(away[0])) from away[0]
        seen = {
            job: one
            for job, one in zip(jobs, found, strict=True)
            if not isinstance(one, ServerUnavailable)
        }
        return Sight(seen, await self._served())

    async def aclose(self) -> None:
        """Close the HTTP session."""
        client, self._opened = self._opened, None
        if client is not None:
            await client.aclose()

    async def _ask(self, job_id: str) -> JobSight | ServerUnavailable | None:
        try:
            job = await http.asend(
                self._client(), calls.get_job(job_id), self._settings
            )
        except JobVanished:
            return None
        except ServerUnavailable as error:
            return error
        return JobSight(job.state, retried=job.retried)

    async def _served(self) -> set[str] | None:
        if self._settings.admin_key is None:
            return None
        try:
            workers = await http.asend(
                self._client(), calls.list_workers(), self._settings
            )
        except (ServerUnavailable, NotAllowed):
            return None
        alive = [queues_of(one.queues) for one in workers if not one.is_stale]
        return cast("set[str]", set()).union(*alive)

    def _client(self) -> httpx.AsyncClient:
        if self._opened is None:
            self._opened = httpx.AsyncClient(
                base_url=self._settings.server_url,
                timeout=http.REQUEST_TIMEOUT,
                limits=httpx.Limits(max_connections=AT_ONCE),
            )
        return self._opened
