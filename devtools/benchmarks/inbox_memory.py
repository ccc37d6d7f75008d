# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""What a delivery costs Redis: memory, commands, and bytes in its append-only file.

Deliveries are written and read by the inbox's own code. The floor is a bare ``SET`` of
the body under the same key. What remains when a delivery has expired is the digest that
recognises a late repetition.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from redis.asyncio import Redis as AsyncRedis

from devtools.benchmarks.servers import CONN_ID, port_of, running_redis
from devtools.benchmarks.table import Table
from runqy_delivery import Delivery
from runqy_provider.config import Config
from runqy_provider.inbox import keys
from runqy_provider.inbox.writer import InboxWriter, digest
from runqy_provider.redis_connection import RedisConnection

if TYPE_CHECKING:
    from collections.abc import Iterator

    from redis import Redis

SIZES, QUICK_SIZES = (100, 1000, 10_000), (100, 1000)

#: Bytes of a result.
RESULT = 2048

#: Seconds for which a repetition could come, from now on.
REPEATED_FOR = 48 * 3600


def run(*, quick: bool) -> Iterator[Table]:
    """Measure with each number of deliveries."""
    table = Table(
        "inbox_memory",
        f"What a delivery with {RESULT:,} bytes costs Redis",
        (
            *("way", "deliveries", "bytes of a body", "bytes of memory"),
            *("bytes when it has expired", "bytes in the append-only file"),
        ),
        note="All but the number of deliveries is per delivery.",
    )
    for deliveries in QUICK_SIZES if quick else SIZES:
        made = [
            Delivery(f"{number:036}", result={"text": "x" * RESULT})
            for number in range(deliveries)
        ]
        for name, write in (("our inbox", write_deliveries), ("bare: SET", _set)):
            with running_redis(appendonly=True) as redis:
                before = _usage(redis)
                write(redis, made)
                after = _usage(redis)
                _expire(redis)
                left = _usage(redis)[0] - before[0]
            size = sum(len(each.to_json()) for each in made)
            memory, appended = (
                now - then for now, then in zip(after, before, strict=True)
            )
            shares = [total / deliveries for total in (size, memory, left, appended)]
            table.add(name, deliveries, *(round(share) for share in shares))
            yield table


def write_deliveries(redis: Redis, deliveries: list[Delivery]) -> None:
    """Write deliveries as a receiver does."""

    async def write() -> None:
        port = port_of(redis)
        connection = RedisConnection(
            "redis_default", f"127.0.0.1:{port}", (("port", port),)
        )
        async with AsyncRedis(port=port) as client:
            writer = InboxWriter(client, connection, CONN_ID)
            until = int(time.time()) + REPEATED_FOR
            for each in deliveries:
                await writer.put(each, each.to_json(), digest(each), until)

    asyncio.run(write())


def _set(redis: Redis, deliveries: list[Delivery]) -> None:
    for each in deliveries:
        key = keys.delivery(CONN_ID, each.delivery_id)
        redis.set(key, each.to_json(), ex=Config.unread_ttl_seconds)


def _usage(redis: Redis) -> tuple[int, int]:
    """Return bytes of memory, and of the append-only file."""
    info: dict[str, Any] = redis.info()
    # The memory of the clients and of the file's buffer is not a cost of a delivery.
    return redis.info("memory")["used_memory_dataset"], info["aof_current_size"]


def _expire(redis: Redis) -> None:
    """Remove the deliveries, as their expiry does."""
    found = [*redis.scan_iter(keys.delivery(CONN_ID, "*"), count=10_000)]
    redis.unlink(*found)
