# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Look at one runqy connection: its server, its inbox, its queues, its deliveries."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from runqy_provider.client import api
from runqy_provider.errors import Misconfigured, RunqyError
from runqy_provider.inbox.records import RecentDeliveries, read_recent
from runqy_provider.plugins.page.connections import load_connection
from runqy_provider.plugins.page.queues import (
    QueueCounts,
    counts_from_api,
    counts_in_redis,
)
from runqy_provider.python_compat import timeout
from runqy_provider.redis_client import async_client, redis_errors
from runqy_provider.sanitize import one_line

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Sequence

    from redis.asyncio import Redis

    from runqy_provider.connections import RedisConnection
    from runqy_provider.context import SinkContext

T = TypeVar("T")

#: Seconds after which a server or a Redis counts as unavailable.
TIMEOUT = 2.0

#: How many of the last deliveries are shown, per connection.
MOST_DELIVERIES = 25

#: The longest message that is shown, in characters.
LONGEST_MESSAGE = 400


@dataclass(frozen=True)
class Check:
    """Whether one part can be used.

    Attributes:
        address: Where it is, without login and password.
        problem: Why it cannot be used; empty where it can.
    """

    address: str
    problem: str = ""


@dataclass(frozen=True)
class ConnectionView:
    """What the page shows of a connection; it contains no secret.

    Attributes:
        conn_id: Its id.
        checked_at: When it was looked at, in seconds since 1970.
        problem: Why it cannot be used at all; empty where it can.
        server: The runqy server.
        inbox: The Redis of the inbox.
        queues: The queues; None where they are not known.
        queues_problem: Why they are not known.
        recent: The last deliveries.
    """

    conn_id: str
    checked_at: float
    problem: str = ""
    server: Check | None = None
    inbox: Check | None = None
    queues: Sequence[QueueCounts] | None = None
    queues_problem: str = ""
    recent: RecentDeliveries = field(default_factory=RecentDeliveries)


async def look_at(conn_id: str) -> ConnectionView:
    """Look at everything at once; what does not answer within 2 s is unavailable."""
    try:
        context = await asyncio.to_thread(load_connection, conn_id)
    except Misconfigured as error:
        return ConnectionView(
            conn_id, time.time(), one_line(str(error), LONGEST_MESSAGE)
        )
    server, (recent, inbox_problem), (queues, queues_problem) = await asyncio.gather(
        _check_server(context), _read_inbox(context), _count(context)
    )
    inbox = "" if context.redis is None else context.redis.address
    return ConnectionView(
        conn_id,
        time.time(),
        server=server,
        inbox=Check(inbox, inbox_problem),
        queues=queues,
        queues_problem=queues_problem,
        recent=recent or RecentDeliveries(),
    )


async def _check_server(context: SinkContext) -> Check:
    connection = context.connection

    async def ask() -> bool:
        return await asyncio.to_thread(api.ask, connection, api.health())

    is_healthy, problem = await _within_limit(context, ask())
    if is_healthy is False:
        problem = "It runs, but says that it is not healthy: its own Redis may be away."
    return Check(_shown(connection.server_url), problem)


async def _read_inbox(context: SinkContext) -> tuple[RecentDeliveries | None, str]:
    redis = context.redis
    if redis is None:
        name = context.connection.redis_conn_id
        return None, (
            f"Redis connection {name!r} does not exist: deliveries cannot be stored. "
            "Create it under Admin, Connections."
        )

    async def read() -> RecentDeliveries:
        namespace = context.connection.conn_id
        node, in_keys = redis.for_namespace(namespace), redis.in_keys(namespace)
        async with opened(node, "read the last deliveries") as client:
            await client.ping()
            return await read_recent(client, in_keys, MOST_DELIVERIES)

    return await _within_limit(context, read())


async def _count(context: SinkContext) -> tuple[list[QueueCounts] | None, str]:
    connection, redis = context.connection, context.runqy_redis

    async def count() -> list[QueueCounts]:
        if redis is not None:
            async with opened(redis, "count the jobs of all queues") as client:
                return await counts_in_redis(client)
        return await counts_from_api(connection)

    if redis is None and connection.admin_key is None:
        return None, (
            "Queues are not known. Set the admin key of this connection, or name "
            "runqy's own Redis in it (runqy_redis_conn_id), which also shows failures."
        )
    return await _within_limit(context, count())


@asynccontextmanager
async def opened(redis: RedisConnection, what: str) -> AsyncIterator[Redis]:
    """Open a client for one look.

    Args:
        redis: The Redis.
        what: What is done, for messages.

    Raises:
        SinkUnavailable: It is unavailable.
        NoAccess: It denies access.
    """
    client = async_client(redis, most_connections=1)
    try:
        with redis_errors(redis, what):
            yield client
    finally:
        await client.aclose()


async def _within_limit(
    context: SinkContext, answer: Awaitable[T]
) -> tuple[T | None, str]:
    """Return an answer, or a message without secrets that says why there is none."""
    try:
        async with timeout(TIMEOUT):
            return await answer, ""
    except asyncio.TimeoutError:
        return None, f"It did not answer within {TIMEOUT:g} s."
    except RunqyError as error:
        return None, _without_secrets(str(error), context)


def _without_secrets(message: str, context: SinkContext) -> str:
    """Return a message in which no secret of a connection can be read."""
    connection = context.connection
    secrets = [connection.api_key, connection.admin_key]
    secrets += [*connection.callback_secrets, *connection.signing_secrets]
    for redis in (context.redis, context.runqy_redis):
        secrets += [] if redis is None else redis.passwords
    message = message.replace(connection.server_url, _shown(connection.server_url))
    for secret in filter(None, secrets):
        message = message.replace(secret, "***")
    return one_line(message, LONGEST_MESSAGE)


def _shown(url: str) -> str:
    """Return a URL without the login and password that it may have."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
