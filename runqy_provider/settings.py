# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""What a sink needs to know of its runqy connection, fetched from Airflow.

In a triggerer every fetch goes through one pipe to the supervisor, one after another.
A hundred triggers that fetch the same connection would block each other, and every
other trigger, for many seconds: so a triggerer fetches each connection once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from runqy_provider.airflow_compat import (
    AirflowNotFoundException,
    conf,
    get_connection,
    in_thread,
)
from runqy_provider.caching import AsyncTtlCache
from runqy_provider.config import OPTIONS, SECTION, Config, default_of
from runqy_provider.connections import RunqyConnection
from runqy_provider.errors import Misconfigured
from runqy_provider.redis_connection import RedisConnection

if TYPE_CHECKING:
    from collections.abc import Callable
    from dataclasses import Field

    from airflow.sdk import Connection

#: The path under which the plugin mounts the receiver in Airflow's API server.
RECEIVER_PATH = "/runqy"

#: Seconds to remember that a connection was not found.
NEGATIVE_TTL = 5.0


@dataclass(frozen=True)
class Settings:
    """A runqy connection, the Redis connections that it names, and the options.

    Attributes:
        connection: The runqy connection.
        config: The options of ``[runqy]``.
        redis: The Redis of the inbox; None if that connection does not exist.
        runqy_redis: The Redis of runqy itself; None if the connection names none.
        max_read_bytes: Larger results are not read into this process: ``open`` raises
            TooLarge. None: no limit.
    """

    connection: RunqyConnection
    config: Config
    redis: RedisConnection | None = None
    runqy_redis: RedisConnection | None = None
    max_read_bytes: int | None = None

    @property
    def callback_url(self) -> str | None:
        """Address of the receiver as workers reach it; None if none is known."""
        return self.connection.callback_url or self.config.receiver_url


_settings_by_id: AsyncTtlCache[Settings] = AsyncTtlCache()


def load_settings(conn_id: str) -> Settings:
    """Fetch a runqy connection and what it names; for sync code.

    Raises:
        AirflowNotFoundException: There is no such connection.
        Misconfigured: The value of a field is not valid.
    """
    return settings_of(get_connection(conn_id))


def settings_of(
    connection: Connection,
    find: Callable[[str], Connection] | None = None,
) -> Settings:
    """Return the context of a runqy connection that was fetched already.

    Args:
        connection: The runqy connection.
        find: Fetches the Redis connections that it names; by default as Airflow does.

    Raises:
        Misconfigured: The value of a field is not valid.
    """
    runqy = RunqyConnection.from_connection(connection)
    named = runqy.runqy_redis_conn_id
    # Often one connection serves both purposes.
    redis = {
        name: _redis(name, find or get_connection)
        for name in {runqy.redis_conn_id, named}
        if name is not None
    }
    runqy_redis = None if named is None else redis[named]
    if named is not None and runqy_redis is None:
        raise Misconfigured(
            f"Redis connection {named!r}, named by connection {runqy.conn_id!r} as "
            "runqy's own, does not exist."
        )
    if runqy_redis is not None and runqy_redis.is_cluster:
        raise Misconfigured(
            f"Redis connection {named!r}, named by connection {runqy.conn_id!r} as "
            "runqy's own, is a cluster. runqy keeps its queues in one Redis: set "
            "runqy_redis_conn_id to that one. The inbox (redis_conn_id) may be a "
            "cluster."
        )
    return Settings(runqy, load_config(), redis[runqy.redis_conn_id], runqy_redis)


async def aload_settings(conn_id: str) -> Settings:
    """Fetch a runqy connection and what it names, cached in this process for a while.

    Raises:
        AirflowNotFoundException: There is no such connection.
        Misconfigured: The value of a field is not valid.
    """

    async def load() -> tuple[Settings, float]:
        settings = await in_thread(load_settings, conn_id)
        ttl = settings.config.connection_ttl_seconds
        if settings.redis is None:
            # It does not exist, or Airflow could not be asked: Airflow's error is the
            # same.
            ttl = min(ttl, NEGATIVE_TTL)
        return settings, ttl

    return await _settings_by_id.get(conn_id, load)


def _redis(conn_id: str, find: Callable[[str], Connection]) -> RedisConnection | None:
    try:
        return RedisConnection.from_connection(find(conn_id))
    except AirflowNotFoundException:
        return None


def load_config() -> Config:
    """Read the options as they are now.

    Raises:
        Misconfigured: The value of an option is out of range.
    """
    values = {option.name: _value(option) for option in OPTIONS}
    base_url = conf.get("api", "base_url", fallback=None)
    return Config(**values, receiver_url=_receiver_url(base_url))


def has_teams() -> bool:
    """Return whether connections may belong to teams (``[core] multi_team``)."""
    return bool(conf.getboolean("core", "multi_team", fallback=False))


def _value(option: Field[Any]) -> Any:
    read = conf.getint if isinstance(option.default, int) else conf.getfloat
    value = read(SECTION, option.name, fallback=default_of(option))
    minimum = option.metadata["minimum"]
    if value <= 0 if minimum is None else value < minimum:
        bound = "more than 0" if minimum is None else f"{minimum} or more"
        raise Misconfigured(
            f"[{SECTION}] {option.name} must be {bound}, not {value}. Change it in "
            "airflow.cfg, or in the environment."
        )
    return value


def _receiver_url(base_url: str | None) -> str | None:
    """Return the URL of Airflow's own receiver.

    ``[api] base_url`` may be only a path, such as ``/airflow/``: a browser knows the
    host, a worker does not.
    """
    parts = urlsplit(base_url or "")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return None
    return urljoin(f"{str(base_url).rstrip('/')}/", RECEIVER_PATH.lstrip("/"))
