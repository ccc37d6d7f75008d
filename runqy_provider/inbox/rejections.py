# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Record rejected deliveries, at a cost that no sender can raise."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import TYPE_CHECKING, NamedTuple

from runqy_provider.errors import NoAccess, SinkUnavailable
from runqy_provider.inbox.records import MOST_RECORDS, DeliveryRecord
from runqy_provider.redis_client import redis_errors
from runqy_provider.sanitize import one_line

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis.asyncio import Redis

    from runqy_provider.connections import RedisConnection
    from runqy_provider.inbox.writer import InboxWriter

log = logging.getLogger(__name__)

#: Seconds between two writes. Whatever comes in between, with the same reason, becomes
#: one record.
WRITE_INTERVAL = 1.0

#: How many waiting tasks can be told in one write.
MOST_UNTOLD = 1000

#: The longest id that is kept, in characters.
LONGEST_ID = 128


class _List(NamedTuple):
    redis: RedisConnection
    key: str


class RejectionRecorder:
    """Counts rejected deliveries, and writes them to the inbox once a second.

    A sender decides how many there are. So a rejection costs an entry in a dict, and
    the request does not wait for Redis. If Redis is unavailable, records are dropped.

    Args:
        client_of: Returns a client of a Redis.
        ttl: Seconds that records are kept after the last one.
    """

    def __init__(self, client_of: Callable[[RedisConnection], Redis], ttl: int) -> None:
        self._client_of = client_of
        self._ttl = ttl
        self._pending: dict[_List, dict[str, DeliveryRecord]] = {}
        self._untold: dict[tuple[str, str], tuple[InboxWriter, str]] = {}
        self._task: asyncio.Task[None] | None = None

    def add(
        self,
        redis: RedisConnection,
        key: str,
        delivery_id: str,
        reason: str,
        detail: str = "",
        *,
        writer: InboxWriter | None = None,
    ) -> None:
        """Record one rejected delivery of a connection that exists.

        Args:
            redis: The Redis of the inbox.
            key: Its list; see ``keys``.
            delivery_id: The id in the URL.
            reason: One of a few texts: rejections with the same one are counted.
            detail: More about this one.
            writer: Tells the waiting task; None where it is not to be told: without a
                valid token, a sender must not write into the log of a task.
        """
        records = self._pending.setdefault(_List(redis, key), {})
        before = records.get(reason)
        records[reason] = DeliveryRecord(
            round(time.time(), 3),
            one_line(delivery_id, LONGEST_ID),
            count=1 if before is None else before.count + 1,
            outcome=f"{reason}: {detail}" if detail else reason,
        )
        if writer is not None and len(self._untold) < MOST_UNTOLD:
            text = f"The receiver refused a delivery of {delivery_id}: "
            self._untold[key, delivery_id] = writer, text + (detail or reason)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._write_regularly())

    async def aclose(self) -> None:
        """Write what is left."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self._write()

    async def _write_regularly(self) -> None:
        while self._pending:
            await asyncio.sleep(WRITE_INTERVAL)
            await self._write()

    async def _write(self) -> None:
        pending, self._pending = self._pending, {}
        for (redis, key), records in pending.items():
            entries = [record.to_entry() for record in records.values()]
            try:
                with redis_errors(redis, "record rejected deliveries"):
                    await self._push(self._client_of(redis), key, entries)
            except (SinkUnavailable, NoAccess) as error:
                log.warning("%s", error)
        untold, self._untold = self._untold, {}
        for (_, delivery_id), (writer, text) in untold.items():
            try:
                await writer.note_refusal(delivery_id, text)
            except (SinkUnavailable, NoAccess) as error:
                log.warning("The waiting task was not told: %s", error)

    async def _push(self, client: Redis, key: str, entries: list[str]) -> None:
        async with client.pipeline(transaction=False) as pipeline:
            pipeline.lpush(key, *entries)
            pipeline.ltrim(key, 0, MOST_RECORDS - 1)
            pipeline.expire(key, self._ttl)
            await pipeline.execute()
