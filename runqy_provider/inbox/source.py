# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The inbox as a source for a waiter: one subscription, one pipeline for all waits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runqy_delivery.wire import FAILED
from runqy_provider.inbox import keys
from runqy_provider.inbox.progress import Progress
from runqy_provider.redis_client import async_client, redis_errors
from runqy_provider.waiters.source import Answer, Arrival, News

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Mapping

    from redis.asyncio import Redis

    from runqy_provider.connections import RedisSettings

#: Seconds after which a silent subscription is asked whether it still stands.
PING_INTERVAL = 30.0

#: One connection listens, one looks.
CONNECTIONS = 2


def where(box: str, delivery_id: str) -> str:
    """Return the address of a delivery in the inbox."""
    return f"inbox://{box}/{delivery_id}"


class InboxArrivals:
    """Final deliveries in one box; addresses are delivery ids.

    Args:
        settings: How to reach the Redis of the inbox.
        box: Which; see ``keys``.
        takes_results: False where results come another way, and a completed delivery
            here only says so, perhaps before the result can be opened.
    """

    def __init__(
        self, settings: RedisSettings, box: str, *, takes_results: bool = True
    ) -> None:
        self._settings = settings
        self._box = box
        self._takes_results = takes_results
        self._opened: Redis | None = None

    async def look(self, addresses: Collection[str]) -> Mapping[str, Answer]:
        """Look for all of them in one round trip; bodies stay where they are."""
        with redis_errors(self._settings, "look for deliveries"):
            async with self._client().pipeline(transaction=False) as pipeline:
                for delivery_id in addresses:
                    key = keys.delivery(self._box, delivery_id)
                    pipeline.hmget(key, "status", "at")
                    pipeline.get(keys.progress(self._box, delivery_id))
                rows = await pipeline.execute()
        answers: dict[str, Answer] = {}
        found = zip(addresses, rows[::2], rows[1::2], strict=True)
        for delivery_id, (status, at), progress in found:
            if status is not None and (
                self._takes_results or status == FAILED.encode()
            ):
                answers[delivery_id] = Arrival(
                    status=status.decode(),
                    where=where(self._box, delivery_id),
                    delivered_at=float(at),
                )
            elif progress is not None:
                known = Progress.from_json(progress)
                answers[delivery_id] = News(str(known), said_at=known.at)
        return answers

    async def hints(self) -> AsyncIterator[str | None]:
        """Yield the id of each message as it comes, None after each (re)connection."""
        with redis_errors(self._settings, "listen for deliveries"):
            async with self._client().pubsub() as subscription:
                await subscription.subscribe(keys.arrivals(self._box))
                while True:
                    message = await subscription.get_message(timeout=PING_INTERVAL)
                    if message is None:
                        await subscription.ping()
                    elif message["type"] == "subscribe":
                        yield None
                    elif message["type"] == "message":
                        yield message["data"].decode("utf-8", "replace")

    async def aclose(self) -> None:
        """Close both connections."""
        client, self._opened = self._opened, None
        if client is not None:
            await client.aclose()

    def _client(self) -> Redis:
        if self._opened is None:
            self._opened = async_client(self._settings, most_connections=CONNECTIONS)
        return self._opened
