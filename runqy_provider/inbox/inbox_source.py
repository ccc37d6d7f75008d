# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The inbox as a source for a waiter: one subscription, one script for all waits.

In a Redis Cluster, all nodes pass on each message of a plain channel. So the hints of a
cluster come by a sharded channel, whose messages stay on the nodes of its slot.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from redis.asyncio.client import PubSub
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from runqy_delivery.wire import FAILED
from runqy_provider.inbox import keys
from runqy_provider.inbox.records import Progress
from runqy_provider.redis_client import async_client, redis_errors
from runqy_provider.waiters.source import Arrival, PollResult, StatusUpdate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Mapping

    from redis.asyncio import Redis

    from runqy_provider.redis_connection import RedisConnection

#: Seconds after which a silent subscription is checked by a ping.
PING_INTERVAL = 30.0

#: One connection subscribes, one polls.
CONNECTIONS = 2

#: How many waits are polled at once: Redis and the event loop are blocked for some
#: milliseconds.
BATCH = 500

# A script, as almost all waits have nothing to say: a pipeline would take twenty times
# the processor time for the same poll. The first third of the keys are those of
# deliveries, the second those of progress, the last those of refusals.
_LOOK = """
local count = #KEYS / 3
local others = redis.call('MGET', unpack(KEYS, count + 1))
local found = {}
for i = 1, count do
  local delivery = redis.call('HMGET', KEYS[i], 'status', 'at')
  local progress, refused = others[i], others[count + i]
  if delivery[1] or progress or refused then
    table.insert(found, {i, delivery[1] or '', delivery[2] or '', progress or '',
                         refused or ''})
  end
end
return found
"""

#: What messages of sharded channels are called elsewhere.
_PLAIN = {"smessage": "message", "ssubscribe": "subscribe"}


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
        self._redis = redis.for_namespace(namespace)
        self._namespace = namespace
        self._in_keys = redis.in_keys(namespace)
        self._takes_results = takes_results
        self._opened: Redis | None = None

    async def poll(self, delivery_ids: Collection[str]) -> Mapping[str, PollResult]:
        """Look for all of them in one round trip; bodies stay where they are."""
        ids, in_keys = list(delivery_ids), self._in_keys
        wanted = [keys.delivery(in_keys, delivery_id) for delivery_id in ids]
        wanted += [keys.progress(in_keys, delivery_id) for delivery_id in ids]
        wanted += [keys.refused(in_keys, delivery_id) for delivery_id in ids]
        look = self._client().register_script(_LOOK)
        with redis_errors(self._redis, "look for deliveries"):
            rows: Any = await look(keys=wanted)
        results: dict[str, PollResult] = {}
        for index, status, at, progress, refused in rows:
            delivery_id = ids[index - 1]
            if status and (self._takes_results or status == FAILED.encode()):
                results[delivery_id] = Arrival(
                    status=status.decode(),
                    result_uri=keys.delivery_uri(self._namespace, delivery_id),
                    delivered_at=float(at),
                )
            elif progress or refused:
                known = Progress.from_json(progress) if progress else None
                results[delivery_id] = StatusUpdate(
                    message="" if known is None else str(known),
                    reported_at=None if known is None else known.at,
                    refusal=refused.decode("utf-8", "replace"),
                )
        return results

    async def hints(self) -> AsyncIterator[str | None]:
        """Yield the id of each message as it comes, None after each (re)connection."""
        with redis_errors(self._redis, "listen for deliveries"):
            async with self._subscription() as subscription:
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

    @asynccontextmanager
    async def _subscription(self) -> AsyncIterator[PubSub]:
        client, channel = self._client(), keys.arrivals(self._in_keys)
        if not self._redis.is_cluster:
            async with client.pubsub() as subscription:
                await subscription.subscribe(channel)
                yield subscription
            return
        async with ShardSubscription(client, channel) as sharded:
            await sharded.open()
            yield sharded

    def _client(self) -> Redis:
        if self._opened is None:
            self._opened = async_client(self._redis, most_connections=CONNECTIONS)
        return self._opened


class ShardSubscription(PubSub):
    """Listens to one channel in the nodes of its slot; use it as a context manager.

    redis-py knows sharded channels only since its version 8.

    Args:
        client: A client whose connections lead to the primary of the slot.
        channel: The channel.
    """

    def __init__(self, client: Redis, channel: str) -> None:
        super().__init__(client.connection_pool)
        self._channel = channel
        self._command = "SSUBSCRIBE"

    async def open(self) -> None:
        """Subscribe; the answer comes as the first message."""
        await self.execute_command(self._command, self._channel)

    async def on_connect(self, connection: Any) -> None:  # noqa: ARG002 - redis-py's
        """Subscribe again on a new connection."""
        await self.open()

    async def get_message(self, *args: Any, **kwargs: Any) -> Any:
        """Return the next message, in the form of one of a plain channel.

        Raises:
            RedisConnectionError: The slot has moved to other nodes.
        """
        try:
            message = await super().get_message(*args, **kwargs)
        except ResponseError as error:
            if "unknown command" not in str(error).lower():
                raise
            self._command = "SUBSCRIBE"
            await self.open()
            return await self.get_message(*args, **kwargs)
        if message is not None:
            if message["type"] == "sunsubscribe":
                raise RedisConnectionError("the slot has moved to another node")
            message["type"] = _PLAIN.get(message["type"], message["type"])
        return message
