# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Leases and retries: extend leases, recover expired ones, enqueue due retries."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from runqy_sandbox.asynq import lua
from runqy_sandbox.asynq.keys import key
from runqy_sandbox.worker.job import Job, due_time, fail, find

if TYPE_CHECKING:
    from collections.abc import Iterable

    from redis.asyncio import Redis

#: asynq's error message for a task whose lease has expired.
EXPIRED = "asynq: task lease expired"


async def extend(redis: Redis, jobs: Iterable[Job], lease_seconds: float) -> None:
    """Extend the leases of jobs that are running."""
    for job in jobs:
        until = {job.id: due_time(lease_seconds)}
        # Only if there is a lease: the job may have ended in the meantime.
        await redis.zadd(key(job.queue, "lease"), until, xx=True)


async def next_due(redis: Redis, queues: Iterable[str]) -> dict[str, float]:
    """Return when the first lease of each queue expires or its first retry is due.

    Returns:
        The times by queue, in seconds since 1970, without the queues that have neither
        leases nor retries.
    """
    names = list(queues)
    async with redis.pipeline(transaction=False) as pipe:
        for name in names:
            pipe.zrange(key(name, "lease"), 0, 0, withscores=True)
            pipe.zrange(key(name, "retry"), 0, 0, withscores=True)
        found = await pipe.execute()
    times: dict[str, float] = {}
    for name, firsts in zip(
        names, zip(found[::2], found[1::2], strict=True), strict=True
    ):
        scores = [score for first in firsts for _, score in first]
        if scores:
            times[name] = min(scores)
    return times


async def recover(
    redis: Redis, queue: str, *, store: bool, retry_unit: float
) -> list[str]:
    """Fail the active jobs of a queue whose lease has expired.

    Args:
        redis: The client to use.
        queue: The name of the sub-queue.
        store: Whether a job without further retries is archived; otherwise it is
            deleted.
        retry_unit: Retry n comes after this many seconds times n⁴.

    Returns:
        The ids of the jobs.
    """
    expired: Any = await redis.zrangebyscore(key(queue, "lease"), "-inf", time.time())
    ids = [job_id.decode() for job_id in expired]
    for job_id in ids:
        job = await find(redis, queue, job_id)
        if job is None:  # its hash was deleted, or is not readable
            await redis.lrem(key(queue, "active"), 1, job_id)
            await redis.zrem(key(queue, "lease"), job_id)
        else:
            await fail(redis, job, EXPIRED, store=store, retry_unit=retry_unit)
    return ids


async def enqueue_due_retries(redis: Redis, queue: str) -> None:
    """Make the jobs of a queue pending whose retry is due."""
    await redis.eval(
        lua.ENQUEUE_DUE,
        2,
        key(queue, "retry"),
        key(queue, "pending"),
        time.time(),
        key(queue, "t:"),
        time.time_ns(),
    )
