# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Pools whose connections find the primary: of Sentinels, or of one slot of a cluster.

Imported only for these. Whenever a connection is opened, it asks where the primary is.
So commands, scripts, pipelines and subscriptions are those of a single Redis, and after
a failover new connections lead to the new primary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from redis import Connection, ConnectionPool, SSLConnection
from redis.asyncio import Connection as AsyncConnection
from redis.asyncio import ConnectionPool as AsyncConnectionPool

from runqy_provider.redis_finder import AsyncFinder, Finder

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runqy_provider.connections import RedisConnection

#: A host that does not exist: redis-py uses it if it opens a connection without us.
NOWHERE = "primary.invalid"


def pool(connection: RedisConnection, options: Mapping[str, Any]) -> ConnectionPool:
    """Return a pool for sync code.

    Args:
        connection: A connection with a ``lookup``.
        options: Arguments for its connections.

    Raises:
        Misconfigured: It is a cluster, and no namespace was chosen.
    """
    rest = dict(options)
    base = SSLConnection if rest.pop("ssl", False) else Connection
    kind = type("FoundConnection", (_Finding, base), {})
    return ConnectionPool(kind, finder=Finder(connection), host=NOWHERE, **rest)


def async_pool(
    connection: RedisConnection,
    options: Mapping[str, Any],
    base: type[AsyncConnection],
) -> AsyncConnectionPool:
    """Return a pool for async code.

    Args:
        connection: A connection with a ``lookup``.
        options: Arguments for its connections.
        base: Their class; a subclass that finds the primary is used.

    Raises:
        Misconfigured: It is a cluster, and no namespace was chosen.
    """
    kind = type("FoundConnection", (_AsyncFinding, base), {})
    return AsyncConnectionPool(
        kind, finder=AsyncFinder(connection), host=NOWHERE, **options
    )


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

    def __init__(self, *, finder: AsyncFinder, **options: Any) -> None:
        super().__init__(**options)
        self._finder = finder

    async def _connect(self) -> None:
        self.host, self.port = await self._finder.find()
        connect: Any = super()._connect
        await connect()
