# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Fetch from Airflow what a sink needs to know: once per process, not once per wait.

In a triggerer every fetch goes through one pipe to the supervisor, one after another,
so a hundred triggers that fetch the same connection would hold up each other and every
other trigger for many seconds.
"""

from __future__ import annotations

import asyncio
import time
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from airflow.sdk import BaseHook
from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import AirflowNotFoundException

from runqy_provider.connections import RedisSettings, RunqySettings
from runqy_provider.errors import Misconfigured

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow.sdk import Connection

#: Where the plugin mounts the receiver in Airflow's API server.
MOUNT = "/runqy"

#: Seconds to remember that a connection was not found.
DOUBT_TTL = 5.0

_remembered: dict[str, tuple[float, Access]] = {}
_locks: weakref.WeakKeyDictionary[
    asyncio.AbstractEventLoop, dict[str, asyncio.Lock]
] = weakref.WeakKeyDictionary()


def get_access(conn_id: str) -> Access:
    """Return what there is to know of a runqy connection; for sync code.

    Raises:
        AirflowNotFoundException: There is no such connection.
        Misconfigured: A field makes no sense.
    """
    return access_of(BaseHook.get_connection(conn_id))


def access_of(
    connection: Connection,
    find: Callable[[str], Connection] | None = None,
) -> Access:
    """Return what there is to know of a runqy connection that was fetched.

    Args:
        connection: The runqy connection.
        find: Fetches the Redis connections that it names; Airflow's own way where not
            given.

    Raises:
        Misconfigured: A field makes no sense.
    """
    settings = RunqySettings.from_connection(connection)
    names = _redis_names(settings)
    fetch = find or BaseHook.get_connection
    return _access(settings, {name: _redis(name, fetch) for name in names})


def _redis_names(settings: RunqySettings) -> set[str]:
    """Return the Redis connections to fetch; often one serves both ends."""
    named = (settings.redis_conn_id, settings.runqy_redis_conn_id)
    return {name for name in named if name is not None}


def _redis(conn_id: str, find: Callable[[str], Connection]) -> RedisSettings | None:
    try:
        return RedisSettings.from_connection(find(conn_id))
    except AirflowNotFoundException:
        return None


async def aget_access(conn_id: str) -> Access:
    """Return the same in async code, remembered for a while.

    However many ask at once, each connection is fetched once.
    """
    locks = _locks.setdefault(asyncio.get_running_loop(), {})
    async with locks.setdefault(conn_id, asyncio.Lock()):
        until, access = _remembered.get(conn_id, (0.0, None))
        if access is None or time.monotonic() >= until:
            access = await _fetch(conn_id)
            ttl = conf.getfloat("runqy", "connection_ttl_seconds")
            if access.redis is None:
                # Not there, or Airflow could not be asked: it says the same of both.
                ttl = min(ttl, DOUBT_TTL)
            _remembered[conn_id] = (time.monotonic() + ttl, access)
        return access


async def _fetch(conn_id: str) -> Access:
    connection = await BaseHook.aget_connection(conn_id)
    settings = RunqySettings.from_connection(connection)
    names = _redis_names(settings)
    return _access(settings, {name: await _aredis(name) for name in names})


async def _aredis(conn_id: str) -> RedisSettings | None:
    try:
        return RedisSettings.from_connection(await BaseHook.aget_connection(conn_id))
    except AirflowNotFoundException:
        return None


def _access(
    settings: RunqySettings, redis: Mapping[str, RedisSettings | None]
) -> Access:
    named = settings.runqy_redis_conn_id
    runqy_redis = None if named is None else redis[named]
    if named is not None and runqy_redis is None:
        raise Misconfigured(
            f"Redis connection {named!r}, named by connection {settings.conn_id!r} as "
            "runqy's own, does not exist."
        )
    return Access(
        settings=settings,
        redis=redis[settings.redis_conn_id],
        runqy_redis=runqy_redis,
        base_url=_receiver_url(conf.get("api", "base_url", fallback=None)),
        max_body=_whole("max_body_bytes"),
        inbox_sweep=_seconds("inbox_sweep_seconds"),
        unread_ttl=_whole("unread_ttl_seconds"),
        object_sweep=_seconds("object_sweep_seconds"),
        poll=_seconds("poll_seconds"),
        longest_poll=_seconds("longest_poll_seconds"),
        watch=_seconds("watch_seconds", zero=True),
        vanished_grace=_seconds("vanished_grace_seconds", zero=True),
    )


def _receiver_url(base: str | None) -> str | None:
    """Return where Airflow's own receiver is; None where that cannot be told.

    ``[api] base_url`` may be a path alone, such as ``/airflow/``: browsers know the
    host, workers do not.
    """
    parts = urlsplit(base or "")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return None
    return urljoin(f"{str(base).rstrip('/')}/", MOUNT.lstrip("/"))


def _whole(option: str) -> int:
    value: int = conf.getint("runqy", option)
    if value < 1:
        raise Misconfigured(f"[runqy] {option} must be 1 or more, not {value}.")
    return value


def _seconds(option: str, *, zero: bool = False) -> float:
    value: float = conf.getfloat("runqy", option)
    if value < 0 or not (value or zero):
        least = "0 or more" if zero else "more than 0"
        raise Misconfigured(f"[runqy] {option} must be {least} seconds, not {value:g}.")
    return value


@dataclass(frozen=True)
class Access:
    """What a sink may need to know, fetched from Airflow by whoever uses it.

    Attributes:
        settings: The runqy connection.
        redis: The Redis of its inbox; None where that connection does not exist.
        runqy_redis: runqy's own Redis; None where the connection names none.
        base_url: Where Airflow's own receiver is; None where ``[api] base_url`` is
            not set.
        max_body: The largest delivery that the receiver takes, in bytes.
        inbox_sweep: Seconds between two looks at the inbox.
        unread_ttl: Seconds that a delivery stays in the inbox while nobody reads it.
        object_sweep: Seconds between two looks at a bucket.
        poll: Seconds between two looks for a young job at a place that does not tell.
        longest_poll: The same for an old one.
        watch: Seconds between two looks at the jobs themselves; 0: they are not.
        vanished_grace: Seconds for which a delivery is waited for once its job has
            ended.
        largest_read: Results of more bytes are not read into this process: ``open``
            raises TooLarge. None: there is no limit.
    """

    settings: RunqySettings
    redis: RedisSettings | None
    runqy_redis: RedisSettings | None
    base_url: str | None
    max_body: int
    inbox_sweep: float
    unread_ttl: int
    object_sweep: float
    poll: float
    longest_poll: float
    watch: float
    vanished_grace: float
    largest_read: int | None = None
