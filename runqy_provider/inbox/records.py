# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Records of the last deliveries.

They say what was accepted, what was rejected, and why. The cost of recording rejected
deliveries does not depend on their number.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from runqy_provider.errors import NoAccess, SinkUnavailable
from runqy_provider.inbox import keys
from runqy_provider.redis_client import redis_errors
from runqy_provider.sanitize import one_line

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from redis.asyncio import Redis
    from typing_extensions import Self

    from runqy_provider.redis_connection import RedisConnection

    #: Tells the task that waits for a delivery, by its id, why one was refused.
    Tell = Callable[[str, str], Awaitable[None]]

log = logging.getLogger(__name__)

#: How many records each list keeps.
MOST_RECORDS = 100

#: The longest outcome that is kept, in characters.
LONGEST_OUTCOME = 300

#: Seconds between two writes. Deliveries that are rejected in between with the same
#: reason become one record.
WRITE_INTERVAL = 1.0

#: How many waiting tasks can be told in one write.
MOST_UNTOLD = 1000

#: The longest id that is kept, in characters.
LONGEST_ID = 128


@dataclass(frozen=True)
class DeliveryRecord:
    """What became of one delivery, or of several that are alike.

    Attributes:
        at: When it arrived, in seconds since 1970.
        delivery_id: Its id, as the sender gave it.
        status: ``completed`` or ``failed``; empty if it could not be read.
        size: Size of its body, in bytes; 0 if it was not read.
        count: How many there were, of which this was the last.
        outcome: ``stored`` or ``repeated``; or why it was rejected.
    """

    at: float
    delivery_id: str
    status: str = ""
    size: int = 0
    count: int = 1
    outcome: str = ""

    @classmethod
    def from_entry(cls, entry: bytes) -> Self:
        """Read an entry of a list, of this version or a newer one."""
        outcome, _, text = entry.decode("utf-8", "replace").partition("\n")
        known = cls.__dataclass_fields__
        kept = {k: v for k, v in json.loads(text).items() if k in known}
        return cls(**kept, outcome=outcome)

    def to_json(self) -> str:
        """Return all but the outcome: the script that stores a delivery adds that."""
        fields = {k: v for k, v in vars(self).items() if k != "outcome"}
        return json.dumps(fields)

    def to_entry(self) -> str:
        return f"{one_line(self.outcome, LONGEST_OUTCOME)}\n{self.to_json()}"


@dataclass(frozen=True)
class RecentDeliveries:
    """The last deliveries of one namespace, newest first.

    Attributes:
        accepted: Those that were stored, or were stored before.
        rejected: Those that were not, with the reason.
    """

    accepted: tuple[DeliveryRecord, ...] = ()
    rejected: tuple[DeliveryRecord, ...] = ()


async def read_recent(client: Redis, namespace: str, most: int) -> RecentDeliveries:
    """Return the last deliveries, in one round trip.

    Args:
        client: A client of the inbox's Redis.
        namespace: The namespace as it is in the keys; see ``keys``.
        most: How many of each.

    Raises:
        RedisError: Redis is unavailable, or denies access.
    """
    lists = (
        keys.accepted(namespace),
        keys.rejected(namespace),
        keys.bad_url(namespace),
    )
    async with client.pipeline(transaction=False) as pipeline:
        for key in lists:
            pipeline.lrange(key, 0, most - 1)
        rows = cast("list[list[bytes]]", await pipeline.execute())
    accepted, rejected, bad_url = (
        [DeliveryRecord.from_entry(entry) for entry in row] for row in rows
    )
    newest = sorted(rejected + bad_url, key=lambda record: record.at, reverse=True)
    return RecentDeliveries(tuple(accepted), tuple(newest[:most]))


class RejectionRecorder:
    """Counts rejected deliveries, and writes them to the inbox once per second.

    A sender decides how many there are. So a rejection costs at most one entry in a
    dict, and the request does not wait for Redis. If Redis is unavailable, records are
    dropped.

    Args:
        client_of: Returns a client of a Redis.
        ttl: Seconds that records are kept after the last one.
    """

    def __init__(self, client_of: Callable[[RedisConnection], Redis], ttl: int) -> None:
        self._client_of = client_of
        self._ttl = ttl
        #: By Redis and key of a list, then by reason.
        self._pending: dict[tuple[RedisConnection, str], dict[str, DeliveryRecord]] = {}
        self._untold: dict[tuple[str, str], tuple[Tell, str]] = {}
        self._task: asyncio.Task[None] | None = None

    def add(
        self,
        redis: RedisConnection,
        key: str,
        delivery_id: str,
        reason: str,
        detail: str = "",
        *,
        tell: Tell | None = None,
    ) -> None:
        """Record one rejected delivery of a connection that exists.

        Args:
            redis: The Redis of the inbox.
            key: Its list; see ``keys``.
            delivery_id: The id in the URL.
            reason: One of a few texts: rejections with the same one are counted.
            detail: More about this one.
            tell: Tells the waiting task why; None if it must not be told: without a
                valid token, a sender must not write into the log of a task.
        """
        records = self._pending.setdefault((redis, key), {})
        before = records.get(reason)
        records[reason] = DeliveryRecord(
            round(time.time(), 3),
            one_line(delivery_id, LONGEST_ID),
            count=1 if before is None else before.count + 1,
            outcome=f"{reason}: {detail}" if detail else reason,
        )
        if tell is not None and len(self._untold) < MOST_UNTOLD:
            text = f"The receiver refused a delivery of {delivery_id}: "
            self._untold[key, delivery_id] = tell, text + (detail or reason)
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
        for (_, delivery_id), (tell, text) in untold.items():
            try:
                await tell(delivery_id, text)
            except (SinkUnavailable, NoAccess) as error:
                log.warning("The waiting task was not told: %s", error)

    async def _push(self, client: Redis, key: str, entries: list[str]) -> None:
        async with client.pipeline(transaction=False) as pipeline:
            pipeline.lpush(key, *entries)
            pipeline.ltrim(key, 0, MOST_RECORDS - 1)
            pipeline.expire(key, self._ttl)
            await pipeline.execute()
