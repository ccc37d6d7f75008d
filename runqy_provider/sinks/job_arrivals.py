# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""runqy's own storage as a source for a waiter: in its Redis, or over HTTP."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import httpx

from runqy_delivery.wire import COMPLETED, FAILED
from runqy_provider.errors import (
    JobVanished,
    RunqyError,
    ServerUnavailable,
    SinkUnavailable,
)
from runqy_provider.redis_client import async_client, redis_errors
from runqy_provider.server import calls, http, job
from runqy_provider.server.stored_jobs import hash_key
from runqy_provider.sinks.job_address import JobAddress
from runqy_provider.waiting.arrival import Answer, Arrival

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Mapping

    from redis.asyncio import Redis

    from runqy_provider.settings import RedisSettings, RunqySettings

#: How many jobs the server is asked about at once.
AT_ONCE = 4

#: runqy's states that end a job, and what they mean for a delivery.
FINAL = {job.COMPLETED: COMPLETED, job.ARCHIVED: FAILED}


class StoredJobArrivals:
    """Finished jobs in runqy's own Redis; addresses are those of results.

    Args:
        settings: How to reach that Redis.
    """

    def __init__(self, settings: RedisSettings) -> None:
        self._settings = settings
        self._opened: Redis | None = None

    async def look(self, addresses: Collection[str]) -> Mapping[str, Answer]:
        """Look for all of them in one round trip; results stay where they are."""
        with redis_errors(self._settings, "look at jobs"):
            async with self._client().pipeline(transaction=False) as pipeline:
                for text in addresses:
                    at = JobAddress.parse(text)
                    key = hash_key(at.runqy_queue, at.job_id)
                    pipeline.hmget(key, "state", "completed_at")
                rows = await pipeline.execute()
        found = zip(addresses, rows, strict=True)
        answers = {text: self._answer(text, *row) for text, row in found}
        return {text: answer for text, answer in answers.items() if answer is not None}

    async def hints(self) -> AsyncIterator[str | None]:
        """Yield nothing: runqy does not tell."""
        return
        yield

    async def aclose(self) -> None:
        """Close the connection."""
        client, self._opened = self._opened, None
        if client is not None:
            await client.aclose()

    def _client(self) -> Redis:
        if self._opened is None:
            self._opened = async_client(self._settings, most_connections=1)
        return self._opened

    def _answer(
        self, text: str, state: bytes | None, completed_at: bytes | None
    ) -> Answer | None:
        if state is None:
            at = JobAddress.parse(text)
            return vanished(at, hash_key(at.runqy_queue, at.job_id), self._settings)
        status = FINAL.get(state.decode())
        if status is None:
            return None
        return Arrival(status, text, float(completed_at or time.time()))


class AskedJobArrivals:
    """Finished jobs as the server tells of them, one by one; same addresses.

    Args:
        settings: The runqy connection.
    """

    def __init__(self, settings: RunqySettings) -> None:
        self._settings = settings
        self._opened: httpx.AsyncClient | None = None

    async def look(self, addresses: Collection[str]) -> Mapping[str, Answer]:
        """Ask about each of them, a few at once."""
        turns = asyncio.Semaphore(AT_ONCE)

        async def ask(text: str) -> Answer | None:
            async with turns:
                return await self._ask(text)

        found = await asyncio.gather(*(ask(text) for text in addresses))
        answers = dict(zip(addresses, found, strict=True))
        away = [one for one in found if isinstance(one, SinkUnavailable)]
        if len(away) == len(found):
            raise away[0]
        return {
            text: answer
            for text, answer in answers.items()
            if answer is not None and not isinstance(answer, SinkUnavailable)
        }

    async def hints(self) -> AsyncIterator[str | None]:
        """Yield nothing: runqy does not tell."""
        return
        yield

    async def aclose(self) -> None:
        """Close the HTTP session."""
        client, self._opened = self._opened, None
        if client is not None:
            await client.aclose()

    async def _ask(self, text: str) -> Answer | None:
        call = calls.get_job(JobAddress.parse(text).job_id)
        try:
            found = await http.asend(self._client(), call, self._settings)
        except ServerUnavailable as error:
            return SinkUnavailable(str(error))
        except RunqyError as error:
            return error
        status = FINAL.get(found.state)
        return None if status is None else Arrival(status, text, time.time())

    def _client(self) -> httpx.AsyncClient:
        if self._opened is None:
            self._opened = httpx.AsyncClient(
                base_url=self._settings.server_url,
                timeout=http.REQUEST_TIMEOUT,
                limits=httpx.Limits(max_connections=AT_ONCE),
            )
        return self._opened


def vanished(at: JobAddress, key: str, settings: RedisSettings) -> JobVanished:
    """Return the error for a job of which runqy's Redis has nothing."""
    return JobVanished(
        f"runqy has no job {at.job_id} in its Redis at {settings.address} (key {key}). "
        "It was deleted, or its time was up, or Redis was flushed, or the queue "
        f"{at.runqy_queue!r} is not configured with redis_storage: true, so that runqy "
        "forgot the job when it ended."
    )
