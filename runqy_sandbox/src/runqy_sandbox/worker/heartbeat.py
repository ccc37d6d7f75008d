# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The heartbeat of a worker: a hash in Redis that expires unless it is renewed."""

from __future__ import annotations

import os
import re
import socket
import time
from typing import TYPE_CHECKING, cast

from redis import Redis as BlockingRedis

from runqy_sandbox.asynq.keys import WORKERS, worker_key

if TYPE_CHECKING:
    from collections.abc import Iterable

    from redis.asyncio import Redis

    from runqy_sandbox.queues import SubQueue

#: Time between two heartbeats, in seconds.
INTERVAL = 5.0
#: How long a heartbeat is kept, in seconds.
TTL = 30
#: How long a worker stays in the set of workers, in seconds.
MEMBERSHIP_TTL = 30 * 60


def worker_id(pid: int | None = None) -> str:
    """Return the id of the worker with a process id; the default is this process."""
    return f"{socket.gethostname()}:{pid or os.getpid()}"


def served_queues(redis_url: str, pid: int) -> set[str]:
    """Return the queues that the worker with a process id serves, by its heartbeat."""
    with BlockingRedis.from_url(redis_url) as redis:
        found = redis.hget(worker_key(worker_id(pid)), "queues")
    text = cast("bytes | None", found) or b""
    return set(re.findall(r"([^\[ ]+):\d+", text.decode()))


async def write(
    redis: Redis,
    sub_queues: Iterable[SubQueue],
    *,
    concurrency: int,
    healthy: bool,
    status: str = "running",
) -> None:
    """Write the heartbeat of this worker to Redis.

    Args:
        redis: The client to write with.
        sub_queues: The queues that the worker serves.
        concurrency: How many jobs the worker runs at a time.
        healthy: Whether all task processes are ready.
        status: ``running`` or ``stopped``.
    """
    now = int(time.time())
    # The format in which Go prints a map; the server returns it unchanged.
    weights = " ".join(f"{sub.name}:{sub.priority}" for sub in sub_queues)
    name = worker_id()
    async with redis.pipeline(transaction=True) as pipe:
        pipe.zadd(WORKERS, {name: now + MEMBERSHIP_TTL})
        pipe.hset(
            worker_key(name),
            mapping={
                "worker_id": name,
                "last_beat": now,
                "concurrency": concurrency,
                "queues": f"map[{weights}]",
                "status": status,
                "healthy": int(healthy),
            },
        )
        pipe.expire(worker_key(name), TTL)
        await pipe.execute()
