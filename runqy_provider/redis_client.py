# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Redis clients, and one type of error for a Redis that is unavailable."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from redis import Redis
from redis.asyncio import Connection as AsyncConnection
from redis.asyncio import ConnectionPool as AsyncConnectionPool
from redis.asyncio import Redis as AsyncRedis
from redis.asyncio import SSLConnection as AsyncSSLConnection
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import (
    AskError,
    AuthenticationError,
    ClusterCrossSlotError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from runqy_provider.errors import NoAccess, SinkUnavailable, TooLarge

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runqy_provider.connections import RedisConnection

#: Seconds for a command: a Redis that does not answer counts as unavailable.
COMMAND_TIMEOUT = 10.0

#: A connection may be broken without our knowledge, so a command is retried on new
#: ones; longer retries are the caller's decision.
TRIES = 3
BACKOFF = ExponentialWithJitterBackoff(base=0.05, cap=0.2)

#: Errors of a user without a permission, or with a wrong password.
DENIED = (AuthenticationError, NoPermissionError)


def async_client(connection: RedisConnection, *, most_connections: int) -> AsyncRedis:
    """Return a client with a small pool; nothing is connected yet.

    Raises:
        Misconfigured: It is a cluster, and no namespace was chosen.
    """
    options = {
        **dict(connection.options),
        "max_connections": most_connections,
        "retry": AsyncRetry(BACKOFF, TRIES),
        # redis-py 5 repeats a command only after these errors.
        "retry_on_error": [RedisConnectionError, RedisTimeoutError],
        "socket_timeout": COMMAND_TIMEOUT,
        "socket_connect_timeout": COMMAND_TIMEOUT,
        "socket_keepalive": True,
    }
    kind = PrimarySSLConnection if options.pop("ssl", False) else PrimaryConnection
    if connection.lookup is None:
        pool = AsyncConnectionPool(connection_class=kind, **options)
    else:
        from runqy_provider import redis_primary  # noqa: PLC0415 - few need it

        pool = redis_primary.async_pool(connection, options, kind)
    return AsyncRedis.from_pool(pool)


def client(connection: RedisConnection) -> Redis:
    """Return a client for sync code; nothing is connected yet.

    Raises:
        Misconfigured: It is a cluster, and no namespace was chosen.
    """
    options = {
        **dict(connection.options),
        "retry": Retry(BACKOFF, TRIES),
        "socket_timeout": COMMAND_TIMEOUT,
        "socket_connect_timeout": COMMAND_TIMEOUT,
    }
    if connection.lookup is None:
        return Redis(**options)
    from runqy_provider import redis_primary  # noqa: PLC0415 - few need it

    return Redis.from_pool(redis_primary.pool(connection, options))


def is_read_only(error: ResponseError) -> bool:
    """Return whether a Redis refused to write because it is a replica.

    Redis 6 wraps that refusal in the error of the script in which it happened.
    """
    return isinstance(error, ReadOnlyError) or "READONLY" in str(error)


def is_out_of_memory(error: BaseException | None) -> bool:
    """Return whether a Redis refused to write because it is full.

    Redis 6 wraps that refusal in the error of the script in which it happened.
    """
    is_full = isinstance(error, OutOfMemoryError)
    return is_full or (isinstance(error, ResponseError) and "-OOM " in str(error))


def is_of_cluster(error: ResponseError) -> bool:
    """Return whether a node of a cluster says that another one has the key.

    redis-py 5 has no types for these, and leaves the code of the error in its text.
    """
    codes = ("MOVED ", "ASK ", "CROSSSLOT ")
    is_of = isinstance(error, (AskError, ClusterCrossSlotError))
    return is_of or str(error).startswith(codes)


class PrimaryConnection(AsyncConnection):
    """A connection that closes if its Redis is not the primary.

    After a failover, connections that stay open lead to the old primary. redis-py
    repeats a command whose connection was closed, on a new one, which leads to the new
    primary.
    """

    async def read_response(self, *args: Any, **kwargs: Any) -> Any:
        """Read one response.

        Raises:
            RedisConnectionError: This Redis is a replica, or has lost the slot.
        """
        try:
            return await super().read_response(*args, **kwargs)
        except ResponseError as error:
            if not (is_read_only(error) or is_of_cluster(error)):
                raise
            await self.disconnect()
            why = "another node of its cluster has the key"
            if is_read_only(error):
                why = "it is a replica, not the primary"
            raise RedisConnectionError(f"{why} ({error})") from error


class PrimarySSLConnection(PrimaryConnection, AsyncSSLConnection):
    """The same, with TLS."""


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
    except (RedisError, OSError) as error:
        # redis-py wraps errors that occur while a connection is opened.
        if isinstance(error, DENIED) or isinstance(error.__cause__, DENIED):
            raise NoAccess(
                f"Could not {what}: Redis at {connection.address} denies access: "
                f"{error}. Check login and password of connection "
                f"{connection.conn_id!r}."
            ) from error
        why = f"does not answer: {error}"
        if is_out_of_memory(error):
            why = f"is out of memory: give it more (maxmemory), or delete keys. {error}"
        elif isinstance(error, ResponseError):
            why = f"refused: {error}"
        raise SinkUnavailable(
            f"Could not {what}: Redis at {connection.address} "
            f"(connection {connection.conn_id!r}) {why}"
        ) from error
