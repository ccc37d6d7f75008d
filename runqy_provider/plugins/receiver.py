# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The receiver as Airflow mounts it: it looks up Airflow's runqy connections."""

from __future__ import annotations

import asyncio
from typing import Any

from airflow.models.connection import Connection
from airflow.utils.session import create_session
from sqlalchemy import select, text
from sqlalchemy.exc import SQLAlchemyError

from runqy_provider.airflow_compat import (
    AirflowNotFoundException,
    get_connection,
    metrics,
)
from runqy_provider.caching import ExpiringDict
from runqy_provider.connections import RUNQY_TYPES
from runqy_provider.errors import Misconfigured
from runqy_provider.receiver.app import create_app
from runqy_provider.receiver.connections import (
    CallbackConnection,
    Limits,
    LookupThrottled,
    LookupUnavailable,
)
from runqy_provider.settings import RECEIVER_PATH, has_teams, load_config, settings_of

#: How many unknown connection ids are remembered: a sender can make up any number.
MAX_UNKNOWN_CONN_IDS = 256

#: Seconds to remember an unknown connection id, or a connection that is misconfigured.
NEGATIVE_TTL = 5.0

#: If a secret does not match, its connection is looked up again, at most once in so
#: many seconds.
REFRESH_AFTER = 5.0

#: How many unknown connections are looked up at once.
MAX_UNKNOWN_LOOKUPS = 2


def receiver_app() -> dict[str, Any]:
    """Return the receiver for ``AirflowPlugin.fastapi_apps``."""
    config = load_config()
    connections = ConnectionCache(config.connection_ttl_seconds)
    limits = Limits(max_body_bytes=config.max_body_bytes, ttl=config.unread_ttl_seconds)
    return {
        "name": "runqy receiver",
        "app": create_app(connections.find, limits, _count_rejected),
        "url_prefix": RECEIVER_PATH,
    }


def _count_rejected(reason: str) -> None:
    metrics().incr("runqy.deliveries.rejected", tags={"reason": reason})


class ConnectionCache:
    """Airflow's runqy connections, remembered for a while.

    Args:
        ttl: Seconds to remember a connection.
    """

    def __init__(self, ttl: float) -> None:
        self._ttl = ttl
        self._known: ExpiringDict[CallbackConnection] = ExpiringDict()
        #: By id: why a connection is misconfigured; empty if it does not exist.
        self._unknown: ExpiringDict[str] = ExpiringDict(MAX_UNKNOWN_CONN_IDS)
        self._lookups: dict[str, asyncio.Task[CallbackConnection | None]] = {}

    async def find(
        self, conn_id: str, *, refresh: bool = False
    ) -> CallbackConnection | None:
        """Return a connection, or None.

        Many requests for one connection at once cause one lookup. Requests for unknown
        connections do not keep known ones from being looked up again.

        Raises:
            Misconfigured: The connection has no Redis.
            LookupUnavailable: Airflow's database cannot be asked; or a connection that
                was found before is not found any more. Airflow also says that if it
                could not ask, so the sender should retry.
            LookupThrottled: Too many unknown connections are asked for.
        """
        known = self._known.get(conn_id)
        age = self._ttl - self._known.age_left(conn_id)
        if known is not None and not (refresh and age >= REFRESH_AFTER):
            return known
        error = self._unknown.get(conn_id)
        if error is not None:
            if error:
                raise Misconfigured(error)
            return None
        if conn_id not in self._lookups:
            unknown = sum(name not in self._known for name in self._lookups)
            if conn_id not in self._known and unknown >= MAX_UNKNOWN_LOOKUPS:
                raise LookupThrottled(conn_id)
            self._lookups[conn_id] = asyncio.create_task(self._look_up(conn_id))
        found = await asyncio.shield(self._lookups[conn_id])
        if found is None and conn_id in self._known:
            raise LookupUnavailable(f"connection {conn_id!r} is not found any more")
        return found

    async def _look_up(self, conn_id: str) -> CallbackConnection | None:
        try:
            found = await asyncio.to_thread(find_callback_connection, conn_id)
        except Misconfigured as error:
            self._unknown.set(conn_id, str(error), NEGATIVE_TTL)
            raise
        finally:
            del self._lookups[conn_id]
        if found is not None:
            self._known.set(conn_id, found, self._ttl)
        elif conn_id not in self._known:
            self._unknown.set(conn_id, "", NEGATIVE_TTL)
        return found


def find_callback_connection(conn_id: str) -> CallbackConnection | None:
    """Return what the receiver needs of an Airflow connection, in the calling thread.

    Args:
        conn_id: The id of the connection.

    Returns:
        The inbox's Redis and the secrets; None if the connection does not exist, or has
        another type than runqy.

    Raises:
        Misconfigured: A field is invalid, or the Redis connection does not exist.
        LookupUnavailable: Airflow's database is unavailable.
    """
    try:
        connection = find_connection(conn_id)
    except AirflowNotFoundException:
        _check_database()
        return None
    if connection.conn_type not in RUNQY_TYPES:
        # To a sender, a connection of another type looks like a missing one.
        return None
    settings = settings_of(connection, find_connection)
    runqy = settings.connection
    if settings.redis is None:
        _check_database()
        raise Misconfigured(f"Redis connection {runqy.redis_conn_id!r} does not exist.")
    return CallbackConnection(
        conn_id, settings.redis, runqy.callback_secrets, runqy.signing_secrets
    )


def find_connection(conn_id: str) -> Any:
    """Return a connection, also one that belongs to a team.

    Raises:
        AirflowNotFoundException: It does not exist.
    """
    try:
        return get_connection(conn_id)
    except AirflowNotFoundException:
        found = _of_a_team(conn_id)
        if found is None:
            raise
        return found


def _of_a_team(conn_id: str) -> Any:
    """Return a connection that belongs to a team, which Airflow shows only to it.

    None if there are no teams, or it does not exist.
    """
    if not has_teams():
        return None
    with create_session() as session:
        statement = select(Connection).where(Connection.conn_id == conn_id)
        found = session.scalars(statement).one_or_none()
        if found is not None:
            session.expunge(found)
        return found


def _check_database() -> None:
    """Check that Airflow's database answers: without it, no connection is found.

    Raises:
        LookupUnavailable: It does not answer.
    """
    try:
        with create_session() as session:
            session.execute(text("SELECT 1"))
    except SQLAlchemyError as error:
        raise LookupUnavailable(
            f"Airflow's database cannot be asked: {type(error).__name__}"
        ) from error
