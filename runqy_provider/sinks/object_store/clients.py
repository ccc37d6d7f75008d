# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Clients of object stores, one per place and process."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

T = TypeVar("T")

#: Seconds after which a client is made anew, so that a changed connection is noticed.
CLIENT_TTL = 900.0

#: Seconds after which that is tried again, where it failed.
TRY_AGAIN = 60.0

#: By place: when to make the client anew, and the client.
_clients: dict[str, tuple[float, Any]] = {}
_lock = threading.Lock()


def shared_client(place: str, make: Callable[[T | None], T]) -> T:
    """Return the process's client for a place.

    Blocks while Airflow is asked for a connection: from async code, call it in a
    thread. The clients kept here may be used by several threads at once. Where one
    cannot be made anew the old one stays, with a warning: many wait by it, and Airflow
    may be away for a moment.

    Args:
        place: What tells places apart, in words: the connection, and the bucket where
            a client is for one only.
        make: Makes the client, for the first who asks, and after a while again; gets
            the client so far.

    Raises:
        Exception: What ``make`` raises for the first who asks.
    """
    with _lock:
        due, client = _clients.get(place, (0.0, None))
        if client is None:
            client = make(None)
            _clients[place] = (time.monotonic() + CLIENT_TTL, client)
        elif time.monotonic() >= due:
            client, ttl = _made_anew(place, client, make)
            _clients[place] = (time.monotonic() + ttl, client)
        return cast("T", client)


def _made_anew(place: str, client: T, make: Callable[[T | None], T]) -> tuple[T, float]:
    """Return the new client, or else the old, and for how many seconds it is good."""
    try:
        return make(client), CLIENT_TTL
    except Exception as error:  # noqa: BLE001 - whatever Airflow, or a library, raises
        log.warning(
            "The client for %s could not be made anew (%s: %s). The one before stays "
            "in use; the next try is in %.0f s.",
            place,
            type(error).__name__,
            error,
            TRY_AGAIN,
        )
        return client, TRY_AGAIN


def forget_clients() -> None:
    """Forget them all, as a test does that changes connections."""
    with _lock:
        _clients.clear()
