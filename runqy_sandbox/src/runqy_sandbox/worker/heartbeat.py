# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The signs of life of a worker: a hash that expires when the worker is gone."""

from __future__ import annotations

import os
import socket
import time
from typing import TYPE_CHECKING

from runqy_sandbox.asynq.keys import WORKERS, worker_key

if TYPE_CHECKING:
    from collections.abc import Iterable

    from redis.asyncio import Redis

    from runqy_sandbox.queues import SubQueue

#: Seconds between two beats, and seconds a beat is good for.
INTERVAL, TTL = 5.0, 30
#: How long a worker stays in the set of workers, in seconds.
MEMBERSHIP = 30 * 60


def worker_id(pid: int | None = None) -> str:
    """Return the id of the worker with that process id."""
    return f"{socket.gethostname()}:{pid or os.getpid()}"


async def beat(
    redis: Redis,
    sub_queues: Iterable[SubQueue],
    *,
    concurrency: int,
    healthy: bool,
    status: str = "running",
) -> None:
    """Tell Redis that this worker is alive."""
    now = int(time.time())
    # Go prints a map like this, and the server passes it on as it is.
    weights = " ".join(f"{sub.name}:{sub.priority}" for sub in sub_queues)
    name = worker_id()
    async with redis.pipeline(transaction=True) as pipe:
        pipe.zadd(WORKERS, {name: now + MEMBERSHIP})
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
