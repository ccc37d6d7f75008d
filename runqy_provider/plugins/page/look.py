# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Look at the runqy connections: servers, inboxes, queues, deliveries, progress."""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import asynccontextmanager
from dataclasses import asdict
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import urlsplit

from airflow.models.connection import Connection
from airflow.utils.session import create_session
from sqlalchemy import select

from runqy_provider.airflow_compat import AirflowNotFoundException, column_of
from runqy_provider.client import api
from runqy_provider.client.job_status import aread_workers
from runqy_provider.client.queues import QUEUES, count_workers
from runqy_provider.errors import Misconfigured, NoAccess, RunqyError, SinkUnavailable
from runqy_provider.inbox import keys
from runqy_provider.inbox.keys import Progress
from runqy_provider.inbox.records import RecentDeliveries, read_recent
from runqy_provider.plugins.receiver import find_connection
from runqy_provider.python_compat import timeout
from runqy_provider.redis_client import async_client, redis_errors
from runqy_provider.sanitize import one_line
from runqy_provider.settings import Settings, settings_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Sequence

    from redis.asyncio import Redis

    from runqy_provider.connections import RunqyConnection
    from runqy_provider.redis_connection import RedisConnection

T = TypeVar("T")

#: Seconds after which a server or a Redis counts as unavailable. Until then its state
#: is not known: a busy machine takes some seconds for its first request.
TIMEOUT = 10.0

#: Seconds within which an inbox must return progress: a response waits for it.
PROGRESS_TIMEOUT = 0.5

#: How many of the last deliveries are shown, per connection.
MOST_DELIVERIES = 25

#: The longest message that is shown, in characters.
LONGEST_MESSAGE = 400

CONN_TYPE = "runqy"

#: The environment variables in which Airflow looks for connections.
VARIABLE_PREFIX = "AIRFLOW_CONN_"

#: What is counted of each queue: jobs that wait for a worker, that run, that failed and
#: will run again, that failed for good and are kept; and how often one failed since
#: 0:00 UTC, which is None if it is not known.
COUNTS = ("pending", "active", "retry", "archived", "failed_today")


def list_connections() -> dict[str, str | None]:
    """Return the ids of all runqy connections and the team of each, if it has one.

    Those in the database and in environment variables. A secrets backend cannot list
    what it has.
    """
    with create_session() as session:
        statement = select(
            Connection.conn_id, column_of(Connection, "team_name")
        ).where(Connection.conn_type == CONN_TYPE)
        teams = {row.conn_id: row.team_name for row in session.execute(statement)}
    for name, value in os.environ.items():
        if name.startswith(VARIABLE_PREFIX) and _is_runqy(value):
            teams.setdefault(name.removeprefix(VARIABLE_PREFIX).lower(), None)
    return teams


async def load_connection(conn_id: str) -> Settings | str:
    """Return a runqy connection with what it names; or why it cannot be used."""
    try:
        async with timeout(TIMEOUT):
            return await asyncio.to_thread(_load_connection, conn_id)
    except asyncio.TimeoutError:
        return f"Airflow did not look this connection up within {TIMEOUT:g} s."
    except Misconfigured as error:
        return one_line(str(error), LONGEST_MESSAGE)


def _load_connection(conn_id: str) -> Settings:
    try:
        return settings_of(find_connection(conn_id), find_connection)
    except AirflowNotFoundException as error:
        raise Misconfigured(
            f"Connection {conn_id!r} does not exist, or Airflow could not look it up. "
            "Create it under Admin, Connections."
        ) from error


async def look_at_server(settings: Settings) -> dict[str, Any]:
    """Ask a runqy server for its health; ``problem`` is empty if it is good."""
    connection = settings.connection

    async def ask() -> bool:
        return await asyncio.to_thread(api.ask, connection, api.health())

    is_healthy, problem = await _within_limit(settings, ask())
    if is_healthy is False:
        problem = (
            "It runs, but says that it is not healthy: its own Redis may be "
            "unavailable."
        )
    address = _shown(connection.server_url)
    return {"server": {"address": address, "problem": problem}}


async def look_at_inbox(settings: Settings) -> dict[str, Any]:
    """Read the last deliveries from an inbox."""
    redis = settings.redis
    if redis is None:
        name = settings.connection.redis_conn_id
        problem = (
            f"Redis connection {name!r} does not exist: deliveries cannot be stored. "
            "Create it under Admin, Connections."
        )
        return {"inbox": {"address": "", "problem": problem}}

    async def read() -> RecentDeliveries:
        namespace = settings.connection.conn_id
        node, in_keys = redis.for_namespace(namespace), redis.in_keys(namespace)
        async with _opened(node, "read the last deliveries") as client:
            await client.ping()
            return await read_recent(client, in_keys, MOST_DELIVERIES)

    recent, problem = await _within_limit(settings, read())
    inbox = {"address": redis.address, "problem": problem}
    return {"inbox": inbox, "recent": asdict(recent or RecentDeliveries())}


async def look_at_queues(settings: Settings) -> dict[str, Any]:
    """Count the jobs and workers of all queues; None if they are not known."""
    connection, redis = settings.connection, settings.runqy_redis

    async def count() -> list[dict[str, Any]]:
        if redis is not None:
            async with _opened(redis, "count the jobs of all queues") as client:
                return await _counts_in_redis(client)
        return await _counts_from_api(connection)

    if redis is None and connection.admin_key is None:
        problem = (
            "Queues are not known. Set the admin key of this connection, or name "
            "runqy's own Redis in it (runqy_redis_conn_id), which also shows failures."
        )
        return {"queues": None, "queues_problem": problem}
    queues, problem = await _within_limit(settings, count())
    return {"queues": queues, "queues_problem": problem}


async def _counts_in_redis(client: Redis) -> list[dict[str, Any]]:
    """Count in runqy's own Redis, in four round trips.

    Raises:
        RedisError: Redis is unavailable, or denies access.
    """
    workers = await aread_workers(client)
    names = cast("set[bytes]", await client.smembers(QUEUES))
    # asynq knows a queue once it has had a job.
    queues = sorted({name.decode("utf-8", "replace") for name in names} | {*workers})
    async with client.pipeline(transaction=False) as pipeline:
        today = datetime.now(timezone.utc).date().isoformat()
        for queue in queues:
            prefix = f"asynq:{{{queue}}}"
            pipeline.llen(f"{prefix}:pending")
            pipeline.llen(f"{prefix}:active")
            pipeline.zcard(f"{prefix}:retry")
            pipeline.zcard(f"{prefix}:archived")
            pipeline.get(f"{prefix}:failed:{today}")
        numbers = iter([int(number or 0) for number in await pipeline.execute()])
    return [
        {"name": queue, "workers": workers[queue], **dict(zip(COUNTS, numbers))}  # noqa: B905 - the next five
        for queue in queues
    ]


async def _counts_from_api(connection: RunqyConnection) -> list[dict[str, Any]]:
    """Ask the server, which needs the admin key.

    Raises:
        RunqyError: The server is unavailable, or refuses the key.
    """
    # First, as it says what is wrong with a key.
    listed = await asyncio.to_thread(api.ask, connection, api.list_workers())
    rows = await asyncio.to_thread(api.ask, connection, _list_counts())
    workers = count_workers(one.queues for one in listed if not one.is_stale)
    return [
        {
            "name": row["queue"],
            "workers": workers[row["queue"]],
            **{name: int(row.get(name, 0)) for name in COUNTS},
            "failed_today": None,
        }
        for row in sorted(rows, key=lambda row: row["queue"])
    ]


def _list_counts() -> api.ApiRequest[Sequence[Any]]:
    what = "count the jobs of all queues"

    def read(response: api.ApiResponse) -> Sequence[Any]:
        return response.part("queues", what, _rows)

    return api.ApiRequest(what, "GET", "/api/queues", read, needs="admin")


def _rows(items: Any) -> Sequence[Any]:
    return [item for item in items if item["queue"]]


#: All that is known of a connection; each part is looked at on its own.
PARTS = {
    "server": look_at_server,
    "inbox": look_at_inbox,
    "queues": look_at_queues,
}


async def read_progress(
    settings: Settings, delivery_ids: Sequence[str]
) -> dict[str, Progress]:
    """Return the last progress of jobs, by the id of the delivery, in one round trip.

    If an inbox does not answer quickly, there is none: the connection's row says why.
    """
    redis, namespace = settings.redis, settings.connection.conn_id
    if redis is None:
        return {}
    in_keys = redis.in_keys(namespace)
    wanted = [keys.progress(in_keys, delivery_id) for delivery_id in delivery_ids]
    try:
        async with (
            timeout(PROGRESS_TIMEOUT),
            _opened(redis.for_namespace(namespace), "read progress") as client,
        ):
            texts = cast("list[bytes | None]", await client.mget(wanted))
    except (asyncio.TimeoutError, SinkUnavailable, NoAccess):
        return {}
    return {
        delivery_id: Progress.from_json(text)
        for delivery_id, text in zip(delivery_ids, texts, strict=True)
        if text is not None
    }


@asynccontextmanager
async def _opened(redis: RedisConnection, what: str) -> AsyncIterator[Redis]:
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
    settings: Settings, answer: Awaitable[T]
) -> tuple[T | None, str]:
    """Return an answer, or a message without secrets that says why there is none."""
    try:
        async with timeout(TIMEOUT):
            return await answer, ""
    except asyncio.TimeoutError:
        return None, f"It did not answer within {TIMEOUT:g} s."
    except RunqyError as error:
        return None, _without_secrets(str(error), settings)


def _without_secrets(message: str, settings: Settings) -> str:
    """Return a message in which no secret of a connection can be read."""
    connection = settings.connection
    secrets = [connection.api_key, connection.admin_key]
    secrets += [*connection.callback_secrets, *connection.signing_secrets]
    for redis in (settings.redis, settings.runqy_redis):
        secrets += [] if redis is None else redis.passwords
    message = message.replace(connection.server_url, _shown(connection.server_url))
    for secret in filter(None, secrets):
        message = message.replace(secret, "***")
    return one_line(message, LONGEST_MESSAGE)


def _shown(url: str) -> str:
    """Return a URL without the login and password that it may have."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _is_runqy(value: str) -> bool:
    """Return whether an environment variable holds a runqy connection."""
    if value.startswith(f"{CONN_TYPE}:"):
        return True
    try:
        fields = json.loads(value)
    except ValueError:
        return False
    return isinstance(fields, dict) and fields.get("conn_type") == CONN_TYPE
