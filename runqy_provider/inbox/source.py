# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The inbox as a source for a waiter: one subscription, one pipeline for all waits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runqy_delivery.wire import FAILED
from runqy_provider.inbox import keys
from runqy_provider.inbox.progress import Progress
from runqy_provider.redis_client import async_client, redis_errors
from runqy_provider.waiters.source import Arrival, PollResult, StatusUpdate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Mapping

    from redis.asyncio import Redis

    from runqy_provider.connections import RedisConnection

#: Seconds after which a silent subscription is checked by a ping.
PING_INTERVAL = 30.0

#: One connection subscribes, one polls.
CONNECTIONS = 2


#: Scheme of the URIs of deliveries in the inbox.
SCHEME = "inbox://"


def delivery_uri(namespace: str, delivery_id: str) -> str:
    """Return the URI of a delivery in the inbox."""
    return f"{SCHEME}{namespace}/{delivery_id}"


class InboxSource:
    """Final deliveries in one namespace; each wait has a delivery id.

    Args:
        redis: The Redis of the inbox.
        namespace: Part of the inbox; see ``keys``.
        takes_results: False where the result is delivered elsewhere: a completed
            delivery here only announces it, perhaps before it can be opened.
    """

    def __init__(
        self, redis: RedisConnection, namespace: str, *, takes_results: bool = True
    ) -> None:
        self._redis = redis
        self._namespace = namespace
        self._takes_results = takes_results
        self._opened: Redis | None = None

    async def poll(self, delivery_ids: Collection[str]) -> Mapping[str, PollResult]:
        """Look for all of them in one round trip; bodies stay where they are."""
        with redis_errors(self._redis, "look for deliveries"):
            async with self._client().pipeline(transaction=False) as pipeline:
                for delivery_id in delivery_ids:
                    key = keys.delivery(self._namespace, delivery_id)
                    pipeline.hmget(key, "status", "at")
                    pipeline.get(keys.progress(self._namespace, delivery_id))
                rows = await pipeline.execute()
        results: dict[str, PollResult] = {}
        found = zip(delivery_ids, rows[::2], rows[1::2], strict=True)
        for delivery_id, (status, at), progress in found:
            if status is not None and (
                self._takes_results or status == FAILED.encode()
            ):
                results[delivery_id] = Arrival(
                    status=status.decode(),
                    result_uri=delivery_uri(self._namespace, delivery_id),
                    delivered_at=float(at),
                )
            elif progress is not None:
                known = Progress.from_json(progress)
                results[delivery_id] = StatusUpdate(str(known), reported_at=known.at)
        return results

    async def hints(self) -> AsyncIterator[str | None]:
        """Yield the id of each message as it comes, None after each (re)connection."""
        with redis_errors(self._redis, "listen for deliveries"):
            async with self._client().pubsub() as subscription:
                await subscription.subscribe(keys.arrivals(self._namespace))
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
            self._opened = async_client(self._redis, most_connections=CONNECTIONS)
        return self._opened
