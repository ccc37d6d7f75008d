# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Check, before a job is enqueued, that its delivery can be stored and read."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from redis.exceptions import ResponseError

from runqy_provider.errors import Misconfigured, SinkError
from runqy_provider.inbox import keys
from runqy_provider.redis_client import (
    client,
    is_of_cluster,
    is_read_only,
    redis_errors,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from redis import Redis

    from runqy_provider.connections import RedisConnection

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
