# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Read deliveries from the inbox, and wait for them: one subscription for all waits.

In a Redis Cluster, all nodes pass on each message of a plain channel. So the hints of a
cluster come by a sharded channel, whose messages stay on the nodes of its slot.
"""

from __future__ import annotations

import uuid
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from redis.asyncio.client import PubSub
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from runqy_delivery import BadDelivery as WireBadDelivery
from runqy_delivery import Delivery
from runqy_delivery.wire import FAILED
from runqy_provider.errors import Misconfigured, NotThere, SinkError
from runqy_provider.inbox import keys
from runqy_provider.inbox.keys import Progress
from runqy_provider.redis_client import (
    async_client,
    check_size,
    client,
    is_of_cluster,
    is_read_only,
    redis_errors,
)
from runqy_provider.waiters.source import Arrival, PollResult, StatusUpdate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence

    from redis import Redis
    from redis.asyncio import Redis as AsyncRedis
    from typing_extensions import Self

    from runqy_provider.redis_connection import RedisConnection


#: Seconds after which the key of a check expires, if it is not deleted.
CHECK_TTL = 60

#: Written as deliveries are: by a script, with several keys and a TTL.
_WRITE = "redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2]) return 'ok'"

#: Seconds after which a silent subscription is checked by a ping.
PING_INTERVAL = 30.0

#: One connection subscribes, one polls.
CONNECTIONS = 2

#: How many waits are polled at once: Redis and the event loop are blocked for some
#: milliseconds.
IDS_PER_POLL = 500

# A script, as most waits have no news: a pipeline would take twenty times the CPU time
# for the same poll. The first third of the keys are those of deliveries, the second
# those of progress, the last those of refusals.
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

#: Types of messages of sharded channels, and the same types of plain channels.
_PLAIN = {"smessage": "message", "ssubscribe": "subscribe"}


@dataclass(frozen=True)
class StoredDelivery:
    """A delivery as it is stored in the inbox.

    Attributes:
        delivery: The delivery.
        size: Size of its body, in bytes.
        delivered_at: When it arrived, in seconds since 1970.
    """

    delivery: Delivery
    size: int
    delivered_at: float


class InboxReader:
    """Reads one namespace of the inbox; use it as a context manager.

    Args:
        connection: The Redis of the inbox.
        namespace: The namespace; see ``keys``.
    """

    def __init__(self, connection: RedisConnection, namespace: str) -> None:
        self._connection = connection.for_namespace(namespace)
        self._in_keys = connection.in_keys(namespace)
        self._client = client(self._connection)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def read(self, delivery_id: str, max_bytes: int | None = None) -> StoredDelivery:
        """Return a delivery.

        Args:
            delivery_id: Id of the delivery.
            max_bytes: Largest body that is read; None: any.

        Raises:
            TooLarge: Its body is larger, and was not read.
            NotThere: It never arrived, or it has expired.
            SinkUnavailable: Redis is unavailable.
            BadDelivery: The stored body cannot be read.
        """
        key = keys.delivery(self._in_keys, delivery_id)
        with redis_errors(self._connection, "read a delivery"):
            check_size(self._client, key, "body", max_bytes)
            body, at = cast(
                "list[bytes | None]", self._client.hmget(key, ["body", "at"])
            )
        if body is None or at is None:
            raise NotThere(
                f"Delivery {delivery_id} is not in the inbox (Redis at "
                f"{self._connection.address}, key {key}). Unread deliveries expire "
                "after [runqy] unread_ttl_seconds, read ones after "
                f"{keys.READ_TTL // 60} minutes."
            )
        return StoredDelivery(Delivery.from_json(body), len(body), float(at))

    def read_small(
        self, delivery_ids: Sequence[str], most_bytes: int
    ) -> list[StoredDelivery | WireBadDelivery | None]:
        """Return small deliveries, in two round trips.

        Args:
            delivery_ids: Their ids.
            most_bytes: Size of the largest body that is read.

        Returns:
            For each: the delivery; an error if its body cannot be read; None if it is
            larger, or not there.

        Raises:
            SinkUnavailable: Redis is unavailable.
        """
        names = [keys.delivery(self._in_keys, each) for each in delivery_ids]
        with redis_errors(self._connection, "read deliveries"):
            with self._client.pipeline(transaction=False) as pipeline:
                for name in names:
                    pipeline.hstrlen(name, "body")
                sizes = pipeline.execute()
            small = [
                name
                for name, size in zip(names, sizes, strict=True)
                if 0 < size <= most_bytes
            ]
            with self._client.pipeline(transaction=False) as pipeline:
                for name in small:
                    pipeline.hmget(name, ["body", "at"])
                found = dict(zip(small, pipeline.execute(), strict=True))
        return [_stored(*found.get(name, (None, None))) for name in names]

    def forget(self, *delivery_ids: str) -> None:
        """Let deliveries expire soon: their values are now stored elsewhere."""
        with (
            redis_errors(self._connection, "mark a delivery as read"),
            self._client.pipeline(transaction=False) as pipeline,
        ):
            for delivery_id in delivery_ids:
                pipeline.expire(
                    keys.delivery(self._in_keys, delivery_id), keys.READ_TTL
                )
                pipeline.delete(
                    keys.progress(self._in_keys, delivery_id),
                    keys.refused(self._in_keys, delivery_id),
                )
            pipeline.execute()


def _stored(
    body: bytes | None, at: bytes | None
) -> StoredDelivery | WireBadDelivery | None:
    if body is None or at is None:
        return None
    try:
        return StoredDelivery(Delivery.from_json(body), len(body), float(at))
    except WireBadDelivery as error:
        return error


def write_and_read(connection: RedisConnection, namespace: str) -> None:
    """Write, read, publish and delete, with keys like those of deliveries.

    Args:
        connection: The Redis of the inbox.
        namespace: The part of the inbox; see ``keys``.

    Raises:
        Misconfigured: It is a replica, a node of a cluster that is not declared as one,
            or lacks scripting.
        NoAccess: The user lacks a permission; the message says which step failed.
        SinkUnavailable: Redis is unavailable.
    """
    in_keys = connection.in_keys(namespace)
    key = f"{keys.PREFIX}:{in_keys}:check:{uuid.uuid4().hex}"
    arrivals = keys.arrivals(in_keys)
    with closing(client(connection.for_namespace(namespace))) as redis:
        steps: dict[str, Callable[[], object]] = {
            "write a key with a script": lambda: redis.eval(
                _WRITE, 2, key, arrivals, "1", str(CHECK_TTL)
            ),
            "read a key": lambda: redis.get(key),
            "publish on a channel": lambda: _publish(redis, connection, arrivals),
            "delete a key": lambda: redis.delete(key),
        }
        for step, act in steps.items():
            what = f"{step} of the inbox ({key})"
            try:
                with redis_errors(connection, what):
                    act()
            except SinkError as error:
                cause = error.__cause__
                if isinstance(cause, ResponseError):
                    raise _refused(connection, what, cause) or error from cause
                raise


def _publish(redis: Redis, connection: RedisConnection, channel: str) -> object:
    if not connection.is_cluster:
        return redis.publish(channel, "")
    from runqy_provider.inbox.writer import PUBLISH  # noqa: PLC0415 - few need it

    script = f"{PUBLISH} publish('SPUBLISH', KEYS[1], '')"
    return redis.eval(script, 1, channel)


def _refused(
    connection: RedisConnection, what: str, error: ResponseError
) -> Misconfigured | None:
    message, location = str(error), f"Redis at {connection.address}"
    if is_read_only(error):
        why = "it is a read-only replica. Name the primary"
    elif is_of_cluster(error) and not connection.is_cluster:
        why = (
            'it is a node of a Redis Cluster. Add "cluster": true to the extra of its '
            "connection"
        )
    elif "unknown command" in message.lower():
        why = f"it lacks a command that the inbox needs ({message})"
    else:
        return None
    return Misconfigured(
        f"Could not {what}: {location} (connection {connection.conn_id!r}) refused: "
        f"{why}. Deliveries could not be stored."
    )


class InboxSource:
    """Final deliveries in one namespace; each wait has a delivery id.

    Args:
        redis: The Redis of the inbox.
        namespace: Part of the inbox; see ``keys``.
        takes_results: False if the result is delivered elsewhere: a completed delivery
            here only announces it, perhaps before it can be opened.
    """

    def __init__(
        self, redis: RedisConnection, namespace: str, *, takes_results: bool = True
    ) -> None:
        self._redis = redis.for_namespace(namespace)
        self._namespace = namespace
        self._in_keys = redis.in_keys(namespace)
        self._takes_results = takes_results
        self._opened: AsyncRedis | None = None

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

    def _client(self) -> AsyncRedis:
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

    def __init__(self, client: AsyncRedis, channel: str) -> None:
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
        """Return the next message, in the form of a plain channel's message.

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
