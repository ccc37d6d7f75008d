# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Find the jobs that carry a delivery request, in runqy's own Redis.

Over HTTP runqy chooses the id of a job. A worker that dies before it has read the
response does not know it; but the payload of the job has the delivery id.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from runqy_provider.client.queues import hash_key
from runqy_provider.redis_client import opened

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from redis import Redis

    from runqy_provider.redis_connection import RedisConnection

#: How many jobs are read in one round trip.
IDS_PER_READ = 200

#: The lists of a queue, and those of its jobs that wait for a worker.
ALL = ("active", "pending", "retry", "completed", "archived")
WAITING = ("pending", "retry")

#: A job that moves from one list to the next may be missed by one pass.
PASSES = 2


def find_job(
    connection: RedisConnection, runqy_queue: str, delivery_id: str
) -> str | None:
    """Return the id of the job whose payload asks for a delivery.

    Args:
        connection: runqy's own Redis.
        runqy_queue: Full name of the queue.
        delivery_id: The delivery.

    Returns:
        None if no job of the queue does: it was never enqueued, or it has ended.

    Raises:
        SinkUnavailable: Redis is unavailable.
    """
    found = _find(connection, runqy_queue, delivery_id, ALL)
    return next(found, None)


def find_waiting(
    connection: RedisConnection, runqy_queue: str, batch_id: str
) -> list[str]:
    """Return the ids of the jobs of a batch that wait for a worker.

    Args:
        connection: runqy's own Redis.
        runqy_queue: Full name of the queue.
        batch_id: The batch; the ids of its deliveries begin with it.

    Raises:
        SinkUnavailable: Redis is unavailable.
    """
    return list(dict.fromkeys(_find(connection, runqy_queue, batch_id, WAITING)))


def _find(
    connection: RedisConnection, runqy_queue: str, text: str, lists: Sequence[str]
) -> Iterator[str]:
    """Yield the ids of the jobs in these lists whose payload contains a text."""
    with opened(connection, "look for a job") as redis:
        for _ in range(PASSES):
            for ids in _ids(redis, f"asynq:{{{runqy_queue}}}", lists):
                yield from _find_in(redis, runqy_queue, ids, text.encode())


def _ids(redis: Redis, prefix: str, lists: Sequence[str]) -> Iterator[list[bytes]]:
    """Yield the ids of the jobs in some lists of a queue, in batches."""
    for name in lists:
        read = redis.lrange if name in ("active", "pending") else redis.zrange
        start = 0
        while ids := read(f"{prefix}:{name}", start, start + IDS_PER_READ - 1):
            yield cast("list[bytes]", ids)
            start += IDS_PER_READ


def _find_in(
    redis: Redis, runqy_queue: str, ids: list[bytes], wanted: bytes
) -> Iterator[str]:
    with redis.pipeline(transaction=False) as pipeline:
        for job_id in ids:
            pipeline.hget(hash_key(runqy_queue, job_id.decode()), "msg")
        messages = cast("list[bytes | None]", pipeline.execute())
    for job_id, message in zip(ids, messages, strict=True):
        # The message contains the payload unchanged, and a UUID does not occur by
        # chance.
        if message is not None and wanted in message:
            yield job_id.decode()
