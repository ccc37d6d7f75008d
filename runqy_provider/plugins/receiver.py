# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The receiver as Airflow mounts it: doors are Airflow's runqy connections."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import AirflowNotFoundException

from runqy_provider.errors import Misconfigured
from runqy_provider.hooks.access import MOUNT, get_access
from runqy_provider.receiver.app import create_app
from runqy_provider.receiver.doors import Door, Limits

#: How many connections, known and unknown, are remembered at most: a stranger can
#: make up any number of names.
MOST_DOORS = 256


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
        ttl: Seconds to remember for; also that a connection does not exist.
    """

    def __init__(self, ttl: float) -> None:
        self._ttl = ttl
        self._known: dict[str, tuple[float, Door | None]] = {}
        self._lock = asyncio.Lock()

    async def find(self, conn_id: str) -> Door | None:
        """Return the door of a connection, or None.

        Raises:
            Misconfigured: The connection has no callback_secret, or no Redis.
        """
        until, door = self._known.get(conn_id, (0.0, None))
        if time.monotonic() < until:
            return door
        # One look-up at a time: a burst of deliveries needs one, not hundreds.
        async with self._lock:
            until, door = self._known.get(conn_id, (0.0, None))
            if time.monotonic() >= until:
                door = await asyncio.to_thread(_door, conn_id)
                while len(self._known) >= MOST_DOORS:
                    del self._known[next(iter(self._known))]
                self._known[conn_id] = (time.monotonic() + self._ttl, door)
        return door


def _door(conn_id: str) -> Door | None:
    try:
        access = get_access(conn_id)
    except AirflowNotFoundException:
        return None
    if access.redis is None:
        raise Misconfigured(
            f"Redis connection {access.settings.redis_conn_id!r} does not exist."
        )
    settings = access.settings
    return Door(
        conn_id, access.redis, settings.callback_secrets, settings.signing_secrets
    )
