# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The receiver as Airflow mounts it: doors are Airflow's runqy connections."""

from __future__ import annotations

import asyncio
import math
import time
from typing import Any

from airflow.models.connection import Connection
from airflow.sdk import BaseHook
from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import AirflowNotFoundException
from airflow.utils.session import create_session
from sqlalchemy import select, text
from sqlalchemy.exc import SQLAlchemyError

from runqy_provider.connections import RUNQY_TYPES
from runqy_provider.context import MOUNT, access_of
from runqy_provider.errors import Misconfigured
from runqy_provider.receiver.app import create_app
from runqy_provider.receiver.connections import Door, DoorAway, DoorsBusy, Limits

#: How many names of no connection are remembered at most: a stranger can make up any
#: number of them.
MOST_STRANGERS = 256

#: Seconds to remember a name of no connection, or one that is set up wrongly.
DOUBT_TTL = 5.0

#: Seconds between two looks at a connection whose secret a token did not fit.
LOOK_ANEW_AFTER = 5.0

#: How many connections that nobody has heard of are looked for at once.
LOOKS_FOR_STRANGERS = 2


def receiver_app() -> dict[str, Any]:
    """Return what ``AirflowPlugin.fastapi_apps`` wants to know."""
    doors = ConnectionDoors(conf.getfloat("runqy", "connection_ttl_seconds"))
    limits = Limits(
        max_body=conf.getint("runqy", "max_body_bytes"),
        ttl=conf.getint("runqy", "unread_ttl_seconds"),
    )
    return {
        "name": "runqy receiver",
        "app": create_app(doors.find, limits),
        "url_prefix": MOUNT,
    }


class ConnectionDoors:
    """Finds doors among Airflow's connections, and remembers them for a while.

    Args:
        ttl: Seconds to remember a connection for.
    """

    def __init__(self, ttl: float) -> None:
        self._ttl = ttl
        self._known: dict[str, tuple[float, Door]] = {}
        self._strangers: dict[str, tuple[float, Misconfigured | None]] = {}
        self._looks: dict[str, asyncio.Task[Door | None]] = {}

    async def find(self, conn_id: str, *, anew: bool = False) -> Door | None:
        """Return the door of a connection, or None.

        However many ask for one, it is looked for once. Doors that were opened before
        are looked for again whatever strangers ask for.

        Raises:
            Misconfigured: The connection has no Redis.
            DoorAway: Airflow's database cannot be asked; or the connection, known
                before, is not found any more, which Airflow also says where it could
                not ask: no reason to refuse a delivery for good.
            DoorsBusy: Too many connections that nobody has heard of are asked for.
        """
        now = time.monotonic()
        looked, door = self._known.get(conn_id, (-math.inf, None))
        if now < looked + (min(self._ttl, LOOK_ANEW_AFTER) if anew else self._ttl):
            return door
        until, trouble = self._strangers.get(conn_id, (0.0, None))
        if now < until:
            if trouble is not None:
                raise Misconfigured(str(trouble))
            return None
        if conn_id not in self._looks:
            strangers = sum(name not in self._known for name in self._looks)
            if door is None and strangers >= LOOKS_FOR_STRANGERS:
                raise DoorsBusy(conn_id)
            self._looks[conn_id] = asyncio.create_task(self._look(conn_id))
        found = await asyncio.shield(self._looks[conn_id])
        if found is None and conn_id in self._known:
            raise DoorAway(f"connection {conn_id!r} is not found any more")
        return found

    async def _look(self, conn_id: str) -> Door | None:
        try:
            found = await asyncio.to_thread(_door, conn_id)
        except Misconfigured as error:
            self._doubt(conn_id, error)
            raise
        finally:
            del self._looks[conn_id]
        if found is not None:
            self._known[conn_id] = (time.monotonic(), found)
        elif conn_id not in self._known:
            self._doubt(conn_id, None)
        return found

    def _doubt(self, conn_id: str, trouble: Misconfigured | None) -> None:
        """Remember for a moment that there is no door, or what is wrong with it."""
        while len(self._strangers) >= MOST_STRANGERS:
            del self._strangers[next(iter(self._strangers))]
        self._strangers[conn_id] = (time.monotonic() + DOUBT_TTL, trouble)


def _door(conn_id: str) -> Door | None:
    try:
        connection = _find(conn_id)
    except AirflowNotFoundException:
        _check_database()
        return None
    if connection.conn_type not in RUNQY_TYPES:
        return None  # another kind: a sender learns no more of it than of a missing one
    access = access_of(connection, _find)
    if access.redis is None:
        _check_database()
        raise Misconfigured(
            f"Redis connection {access.settings.redis_conn_id!r} does not exist."
        )
    settings = access.settings
    return Door(
        conn_id, access.redis, settings.callback_secrets, settings.signing_secrets
    )


def _find(conn_id: str) -> Any:
    """Return a connection, that of a team included.

    Raises:
        AirflowNotFoundException: There is none.
    """
    try:
        return BaseHook.get_connection(conn_id)
    except AirflowNotFoundException:
        found = _of_a_team(conn_id)
        if found is None:
            raise
        return found


def _of_a_team(conn_id: str) -> Any:
    """Return a connection of a team, which Airflow shows to that team only.

    None where there are no teams, or no such connection.
    """
    if not conf.getboolean("core", "multi_team", fallback=False):
        return None
    with create_session() as session:
        statement = select(Connection).where(Connection.conn_id == conn_id)
        found = session.scalars(statement).one_or_none()
        if found is not None:
            session.expunge(found)
        return found


def _check_database() -> None:
    """Ask Airflow's database for anything: where it is away, nothing is ever found.

    Raises:
        DoorAway: It is away.
    """
    try:
        with create_session() as session:
            session.execute(text("SELECT 1"))
    except SQLAlchemyError as error:
        raise DoorAway(
            f"Airflow's database cannot be asked: {type(error).__name__}"
        ) from error
