# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Read deliveries from the inbox, and forget them."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from redis.exceptions import ResponseError

from runqy_delivery import BadDelivery as WireBadDelivery
from runqy_delivery import Delivery
from runqy_provider.errors import Misconfigured, NotThere, SinkError
from runqy_provider.inbox import keys
from runqy_provider.redis_client import (
    check_size,
    client,
    is_of_cluster,
    is_read_only,
    redis_errors,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType

    from redis import Redis
    from typing_extensions import Self

    from runqy_provider.redis_connection import RedisConnection


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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
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
            For each: the delivery; an error where its body cannot be read; None where
            it is larger, or not there.

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
        """Let deliveries expire soon: their values are kept elsewhere now."""
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


#: Seconds after which the key of a check expires, should it not be deleted.
TTL = 60

#: The policy of a full Redis that refuses to write, and deletes nothing.
NO_EVICTION = "noeviction"

#: Like deliveries: by a script, with several keys and a TTL.
_WRITE = "redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2]) return 'ok'"


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
    steps: dict[str, Callable[[Redis], object]] = {
        "write a key with a script": lambda redis: redis.eval(
            _WRITE, 2, key, keys.arrivals(in_keys), "1", str(TTL)
        ),
        "read a key": lambda redis: redis.get(key),
        "publish on a channel": lambda redis: _publish(
            redis, connection, keys.arrivals(in_keys)
        ),
        "delete a key": lambda redis: redis.delete(key),
    }
    redis = client(connection.for_namespace(namespace))
    try:
        for step, act in steps.items():
            _try(connection, f"{step} of the inbox ({key})", lambda act=act: act(redis))  # type: ignore[misc]
    finally:
        redis.close()


def eviction_of(connection: RedisConnection, namespace: str) -> str | None:
    """Return the policy by which Redis deletes unread deliveries where it is full.

    Returns:
        None where it deletes none (``noeviction``, or no limit of its memory), and
        where the user may not ask.

    Raises:
        SinkUnavailable: Redis is unavailable.
    """
    redis = client(connection.for_namespace(namespace))
    try:
        with redis_errors(connection, "read the settings of its memory"):
            memory: Mapping[str, Any] = redis.info("memory")
    except SinkError as error:
        if isinstance(error.__cause__, ResponseError):
            return None
        raise
    finally:
        redis.close()
    policy = str(memory.get("maxmemory_policy", NO_EVICTION))
    # All keys of the inbox have a TTL, so volatile-* policies delete them, too.
    return policy if policy != NO_EVICTION and memory.get("maxmemory") else None


def _publish(redis: Redis, connection: RedisConnection, channel: str) -> object:
    if not connection.is_cluster:
        return redis.publish(channel, "")
    from runqy_provider.inbox.writer import PUBLISH  # noqa: PLC0415 - few need it

    script = f"{PUBLISH} publish('SPUBLISH', KEYS[1], '')"
    return redis.eval(script, 1, channel)


def _try(connection: RedisConnection, what: str, act: Callable[[], object]) -> None:
    try:
        with redis_errors(connection, what):
            act()
    except SinkError as error:
        cause = error.__cause__
        if isinstance(cause, ResponseError):
            raise _refused(connection, what, cause) or error from cause
        raise


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
