# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""What a worker does on the side: prolong its leases, see to lost and to due jobs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from runqy_sandbox.asynq import lua as transitions
from runqy_sandbox.asynq.keys import key
from runqy_sandbox.worker.job import Job, fail, find, later

if TYPE_CHECKING:
    from collections.abc import Iterable

    from redis.asyncio import Redis

#: asynq's words for a task whose worker went away.
EXPIRED = "asynq: task lease expired"


async def prolong(redis: Redis, jobs: Iterable[Job], lease_seconds: float) -> None:
    """Hold on to the jobs that are being worked on."""
    for job in jobs:
        until = {job.id: later(lease_seconds)}
        # Only where a lease is: the job may have ended meanwhile.
        await redis.zadd(key(job.queue, "lease"), until, xx=True)


async def due(redis: Redis, queues: Iterable[str]) -> dict[str, float]:
    """Return when each queue needs a look next, in one round trip.

    Returns:
        By queue, when its first lease ends or its first retry is due, in seconds since
        1970; a queue with neither is left out.
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
    """Take jobs away from workers that let their lease run out."""
    expired: Any = await redis.zrangebyscore(key(queue, "lease"), "-inf", time.time())
    ids = [job_id.decode() for job_id in expired]
    for job_id in ids:
        job = await find(redis, queue, job_id)
        if job is None:  # deleted while it was active, or never a task of asynq
            await redis.lrem(key(queue, "active"), 1, job_id)
            await redis.zrem(key(queue, "lease"), job_id)
        else:
            await fail(redis, job, EXPIRED, store=store, retry_unit=retry_unit)
    return ids


async def forward(redis: Redis, queue: str) -> int:
    """Move the jobs whose retry is due to the pending ones."""
    return int(
        await redis.eval(
            transitions.FORWARD,
            2,
            key(queue, "retry"),
            key(queue, "pending"),
            time.time(),
            key(queue, "t:"),
            time.time_ns(),
        )
    )
