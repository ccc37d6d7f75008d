# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Find the job that carries a delivery request, in runqy's own Redis.

Over HTTP runqy chooses the id of a job. A worker that dies before it has read the
response does not know it; but the payload of the job has the delivery id.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from runqy_provider.client.redis_keys import hash_key
from runqy_provider.redis_client import client, redis_errors

if TYPE_CHECKING:
    from collections.abc import Iterator

    from redis import Redis

    from runqy_provider.connections import RedisConnection

#: How many jobs are read in one round trip.
AT_ONCE = 200

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
        None where no job of the queue does: it was never enqueued, or it has ended.

    Raises:
        SinkUnavailable: Redis is unavailable.
    """
    wanted = delivery_id.encode()
    redis = client(connection)
    try:
        with redis_errors(connection, "look for a job"):
            for _ in range(PASSES):
                for ids in _ids(redis, f"asynq:{{{runqy_queue}}}"):
                    found = _find_in(redis, runqy_queue, ids, wanted)
                    if found is not None:
                        return found
    finally:
        redis.close()
    return None


def _ids(redis: Redis, prefix: str) -> Iterator[list[bytes]]:
    """Yield the ids of all jobs of a queue, in batches."""
    for name in ("active", "pending", "retry", "completed", "archived"):
        read = redis.lrange if name in ("active", "pending") else redis.zrange
        start = 0
        while ids := read(f"{prefix}:{name}", start, start + AT_ONCE - 1):
            yield cast("list[bytes]", ids)
            start += AT_ONCE


def _find_in(
    redis: Redis, runqy_queue: str, ids: list[bytes], wanted: bytes
) -> str | None:
    with redis.pipeline(transaction=False) as pipeline:
        for job_id in ids:
            pipeline.hget(hash_key(runqy_queue, job_id.decode()), "msg")
        messages = cast("list[bytes | None]", pipeline.execute())
    for job_id, message in zip(ids, messages, strict=True):
        # The message contains the payload unchanged, and a UUID does not occur by
        # chance.
        if message is not None and wanted in message:
            return job_id.decode()
    return None
