# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Redis clients, and one type of error for a Redis that is unavailable.

In a Redis Cluster, and behind Sentinels, each new connection asks where the primary is.
So commands, scripts, pipelines and subscriptions are those of a single Redis, and after
a failover new connections lead to the new primary.
"""

from __future__ import annotations

import asyncio
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

from redis import Connection, ConnectionPool, Redis, SSLConnection
from redis.asyncio import Connection as AsyncConnection
from redis.asyncio import ConnectionPool as AsyncConnectionPool
from redis.asyncio import Redis as AsyncRedis
from redis.asyncio import SSLConnection as AsyncSSLConnection
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.crc import key_slot
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

from runqy_provider.errors import Misconfigured, NoAccess, SinkUnavailable, TooLarge

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runqy_provider.redis_connection import Address, RedisConnection

#: Seconds for a command: a Redis that does not answer counts as unavailable.
COMMAND_TIMEOUT = 10.0

#: A connection may be broken without our knowledge, so a command is retried on new
#: ones; longer retries are the caller's decision.
TRIES = 3
BACKOFF = ExponentialWithJitterBackoff(base=0.05, cap=0.2)

#: Seconds within which a node must answer where the primary is, before another one is
#: asked.
ASK_TIMEOUT = 2.0

#: A host that does not exist: redis-py uses it if it opens a connection without us.
NOWHERE = "primary.invalid"

#: Errors of a user without a permission, or with a wrong password.
DENIED = (AuthenticationError, NoPermissionError)

#: Texts by which several versions of Redis deny a command of a script.
DENIED_IN_SCRIPT = ("NOPERM", "no permissions", "can't run this command")


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
    kind: type[AsyncConnection] = PrimaryConnection
    if options.pop("ssl", False):
        kind = PrimarySSLConnection
    if connection.lookup is not None:
        kind = type("FoundConnection", (_AsyncFinding, kind), {})
        options.update(finder=Finder(connection), host=NOWHERE)
    return AsyncRedis.from_pool(AsyncConnectionPool(kind, **options))


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
    base = SSLConnection if options.pop("ssl", False) else Connection
    kind = type("FoundConnection", (_Finding, base), {})
    finder = Finder(connection)
    return Redis.from_pool(ConnectionPool(kind, finder=finder, host=NOWHERE, **options))


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


def _is_denied(error: BaseException) -> bool:
    """Return whether a user lacks a permission, or its password is wrong."""
    # redis-py wraps errors that occur while a connection is opened.
    if isinstance(error, DENIED) or isinstance(error.__cause__, DENIED):
        return True
    # A command that is denied in a script is an error of the script.
    is_refusal = isinstance(error, ResponseError)
    return is_refusal and any(text in str(error) for text in DENIED_IN_SCRIPT)


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
        if _is_denied(error):
            raise NoAccess(
                f"Could not {what}: Redis at {connection.address} denies access: "
                f"{error}. Check login and password of connection "
                f"{connection.conn_id!r}, and that its user has all permissions that "
                "the page 'Use Redis Cluster, Sentinel, TLS and users' lists."
            ) from error
        reason = str(error).rstrip(".")
        why = (
            f"does not answer: {reason}. Start it, or correct host and port of the "
            "connection."
        )
        if is_out_of_memory(error):
            why = f"is out of memory: give it more (maxmemory), or delete keys. {error}"
        elif isinstance(error, ResponseError):
            why = f"refused: {error}"
        raise SinkUnavailable(
            f"Could not {what}: Redis at {connection.address} "
            f"(connection {connection.conn_id!r}) {why}"
        ) from error


@contextmanager
def opened(connection: RedisConnection, what: str) -> Iterator[Redis]:
    """Open a client for a block; its errors are those of ``redis_errors``.

    Args:
        connection: The Redis connection.
        what: What is being done, for the message.
    """
    with closing(client(connection)) as redis, redis_errors(connection, what):
        yield redis


class Finder:
    """Asks the nodes of a cluster, or Sentinels, where the primary is.

    Args:
        connection: A connection with a ``lookup``.

    Raises:
        Misconfigured: It is a cluster, and no namespace was chosen.
    """

    def __init__(self, connection: RedisConnection) -> None:
        lookup = connection.lookup
        if lookup is None or (connection.is_cluster and connection.hash_tag is None):
            raise Misconfigured(
                f"Redis connection {connection.conn_id!r} is a cluster, which only the "
                "inbox can use. Name a single Redis here, or one with Sentinels."
            )
        options = dict(connection.options)
        options.pop("db", None)
        self._question = ["CLUSTER SLOTS"]
        if lookup.master is not None:
            self._question = ["SENTINEL GET-MASTER-ADDR-BY-NAME", lookup.master]
            # Sentinels have users of their own; certificates are the same.
            for name in ("username", "password"):
                options.pop(name, None)
            options.update(lookup.login)
        self._options: dict[str, Any] = {
            **options,
            "retry": Retry(NoBackoff(), 0),
            "socket_timeout": ASK_TIMEOUT,
            "socket_connect_timeout": ASK_TIMEOUT,
        }
        self._nodes = self._given = lookup.nodes
        self._is_cluster = connection.is_cluster
        self._slot = key_slot((connection.hash_tag or "").encode())

    def find(self) -> Address:
        """Return where the primary is.

        Raises:
            RedisConnectionError: No node knows it.
            NoPermissionError: A node denies access; likewise AuthenticationError.
        """
        errors = []
        for host, port in self._nodes:
            try:
                with Redis(host, port, **self._options) as node:
                    answer = node.execute_command(*self._question)
                return self._understand(answer, (host, port))
            except DENIED:  # any node would say the same
                raise
            except RedisError as error:
                errors.append(f"{host}:{port}: {error}")
        raise RedisConnectionError(
            f"it is not known where the primary is ({'; '.join(errors)})"
        )

    def _understand(self, answer: Any, asked: Address) -> Address:
        """Return where the primary is, and remember which others can be asked.

        Raises:
            ResponseError: The answer does not contain it.
        """
        if not self._is_cluster:
            if answer is None:
                raise ResponseError(f"it has no primary named {self._question[1]!r}")
            return _address(answer, asked)
        found = None
        known = [asked]
        for start, end, *nodes in answer:
            if start <= self._slot <= end:
                found = _address(nodes[0], asked)
            known += [_address(node, asked) for node in nodes]
        if found is None:
            raise ResponseError(f"no node has slot {self._slot}")
        # If that node hands the slot over, it is the first to know the new node.
        self._nodes = tuple(dict.fromkeys([found, *known, *self._given]))
        return found


def _address(node: Any, asked: Address) -> Address:
    """Return host and port from an answer; an empty host: that of the asked node."""
    host, port = node[:2]
    host = host.decode() if isinstance(host, bytes) else host
    return host or asked[0], int(port)


# redis-py has such connections for Sentinels. But its version 8 does not ask again if
# one of them is opened a second time, as after a slot was moved.


class _Finding(Connection):
    """Finds the primary before the socket is opened."""

    def __init__(self, *, finder: Finder, **options: Any) -> None:
        initialize: Any = super().__init__  # it has no types; likewise below
        initialize(**options)
        self._finder = finder

    def _connect(self) -> Any:
        self.host, self.port = self._finder.find()
        connect: Any = super()._connect
        return connect()


class _AsyncFinding(AsyncConnection):
    """Finds the primary before the socket is opened."""

    def __init__(self, *, finder: Finder, **options: Any) -> None:
        super().__init__(**options)
        self._finder = finder

    async def _connect(self) -> None:
        # In a thread: this is rare, and one way to ask serves both kinds of clients.
        self.host, self.port = await asyncio.to_thread(self._finder.find)
        connect: Any = super()._connect
        await connect()
