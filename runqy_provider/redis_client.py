# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Redis clients, and one type of error for a Redis that is unavailable."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import (
    AuthenticationError,
    NoPermissionError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.retry import Retry

from runqy_provider.errors import NoAccess, SinkUnavailable, TooLarge

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from runqy_provider.connections import RedisConnection

T = TypeVar("T")

#: Seconds for a command: a Redis that does not answer counts as unavailable.
COMMAND_TIMEOUT = 10.0

#: A connection may have broken unnoticed, so a command is retried on new ones; longer
#: retries are the caller's decision.
TRIES = 3
BACKOFF = ExponentialWithJitterBackoff(base=0.05, cap=0.2)


def async_client(connection: RedisConnection, *, most_connections: int) -> AsyncRedis:
    """Return a client with a small pool; nothing is connected yet."""
    return AsyncRedis(
        **dict(connection.options),
        max_connections=most_connections,
        retry=AsyncRetry(BACKOFF, TRIES),
        socket_timeout=COMMAND_TIMEOUT,
        socket_connect_timeout=COMMAND_TIMEOUT,
        socket_keepalive=True,
    )


def client(connection: RedisConnection) -> Redis:
    """Return a client for sync code; nothing is connected yet."""
    return Redis(
        **dict(connection.options),
        retry=Retry(BACKOFF, TRIES),
        socket_timeout=COMMAND_TIMEOUT,
        socket_connect_timeout=COMMAND_TIMEOUT,
    )


def is_read_only(error: ResponseError) -> bool:
    """Return whether a Redis refused to write because it is a replica.

    Redis 6 wraps that refusal in the error of the script in which it happened.
    """
    return isinstance(error, ReadOnlyError) or "READONLY" in str(error)


async def on_primary(redis: AsyncRedis, act: Callable[[], Awaitable[T]]) -> T:
    """Write, and once more on new connections where Redis has become a replica.

    After a failover behind one address, connections that stay open lead to the old
    primary; new connections lead to the new one.
    """
    try:
        return await act()
    except ResponseError as error:
        if not is_read_only(error):
            raise
        await redis.connection_pool.disconnect()
        return await act()


def check_size(redis: Redis, key: str, field: str, max_bytes: int | None) -> None:
    """Check the size of a field of a hash before it is read.

    Args:
        redis: The client.
        key: Key of the hash.
        field: Name of the field.
        max_bytes: Largest size that is read; None: any.

    Raises:
        TooLarge: It is larger.
    """
    if max_bytes is None:
        return
    size = redis.hstrlen(key, field)
    if size > max_bytes:
        raise TooLarge(f"{key} has {size} bytes; at most {max_bytes} are read here.")


@contextmanager
def redis_errors(connection: RedisConnection, what: str) -> Iterator[None]:
    """Turn redis-py's errors into errors of this provider.

    Args:
        connection: The Redis connection.
        what: What is being done, for the message: ``"read a delivery"``.
    """
    try:
        yield
    except (AuthenticationError, NoPermissionError) as error:
        raise NoAccess(
            f"Could not {what}: Redis at {connection.address} denies access: {error}. "
            "Check "
            f"login and password of connection {connection.conn_id!r}."
        ) from error
    except (RedisError, OSError) as error:
        raise SinkUnavailable(
            f"Could not {what}: Redis at {connection.address} "
            f"(connection {connection.conn_id!r}) does not answer: {error}"
        ) from error
