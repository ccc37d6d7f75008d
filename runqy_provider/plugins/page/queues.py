# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""How full runqy's queues are, and how many live workers serve each."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from runqy_provider.client import api
from runqy_provider.client.redis_keys import QUEUES, WORKERS, queues_of, worker_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from redis.asyncio import Redis

    from runqy_provider.connections import RunqyConnection


@dataclass(frozen=True)
class QueueCounts:
    """One queue.

    Attributes:
        name: Its full name.
        pending: Jobs that wait for a worker.
        active: Jobs that run.
        retry: Jobs that failed and will run again.
        archived: Jobs that failed for good and are kept.
        failed_today: How often a job failed since 0:00 UTC; None where it is not known.
        workers: Live workers that serve it.
    """

    name: str
    pending: int
    active: int
    retry: int
    archived: int
    failed_today: int | None
    workers: int


async def counts_in_redis(client: Redis) -> list[QueueCounts]:
    """Count in runqy's own Redis, in three round trips.

    Raises:
        RedisError: Redis is unavailable, or denies access.
    """
    async with client.pipeline(transaction=False) as pipeline:
        pipeline.smembers(QUEUES)
        pipeline.zrange(WORKERS, 0, -1)
        names, worker_ids = await pipeline.execute()
        for worker_id in worker_ids:
            pipeline.hget(worker_key(worker_id.decode()), "queues")
        # The hash of a worker that is gone has expired.
        served = [text for text in await pipeline.execute() if text is not None]
        workers = _count_workers(text.decode() for text in served)
        # asynq knows a queue once it has had a job.
        queues = sorted(
            {name.decode("utf-8", "replace") for name in names} | {*workers}
        )
        today = datetime.now(timezone.utc).date().isoformat()
        for queue in queues:
            prefix = f"asynq:{{{queue}}}"
            pipeline.llen(f"{prefix}:pending")
            pipeline.llen(f"{prefix}:active")
            pipeline.zcard(f"{prefix}:retry")
            pipeline.zcard(f"{prefix}:archived")
            pipeline.get(f"{prefix}:failed:{today}")
        numbers = [int(number or 0) for number in await pipeline.execute()]
    counts = []
    for n, queue in enumerate(queues):
        pending, active, retry, archived, failed = numbers[5 * n : 5 * n + 5]
        counts.append(
            QueueCounts(queue, pending, active, retry, archived, failed, workers[queue])
        )
    return counts


async def counts_from_api(connection: RunqyConnection) -> list[QueueCounts]:
    """Ask the server, which needs the admin key.

    Raises:
        RunqyError: The server is unavailable, or refuses the key.
    """
    # First, as it says what is wrong with a key.
    listed = await asyncio.to_thread(api.ask, connection, api.list_workers())
    rows = await asyncio.to_thread(api.ask, connection, _list_counts())
    workers = _count_workers(one.queues for one in listed if not one.is_stale)
    return [
        QueueCounts(
            name=row["queue"],
            pending=int(row.get("pending", 0)),
            active=int(row.get("active", 0)),
            retry=int(row.get("retry", 0)),
            archived=int(row.get("archived", 0)),
            failed_today=None,
            workers=workers[row["queue"]],
        )
        for row in sorted(rows, key=lambda row: row["queue"])
    ]


def _list_counts() -> api.ApiRequest[Sequence[Any]]:
    what = "count the jobs of all queues"

    def read(response: api.ApiResponse) -> Sequence[Any]:
        return response.part("queues", what, _rows)

    return api.ApiRequest(what, "GET", "/api/queues", read, needs="admin")


def _rows(items: Any) -> Sequence[Any]:
    return [item for item in items if item["queue"]]


def _count_workers(texts: Iterable[str]) -> Counter[str]:
    """Return how many workers serve each queue, by what each says it serves."""
    return Counter(queue for text in texts for queue in queues_of(text))
