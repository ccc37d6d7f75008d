# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Clients of object stores, one per place and process."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

T = TypeVar("T")

#: Seconds after which a client is made anew, so that a changed connection is noticed.
CLIENT_TTL = 900.0

_clients: dict[Hashable, tuple[float, Any]] = {}
_lock = threading.Lock()


def shared_client(place: Hashable, make: Callable[[], T]) -> T:
    """Return the process's client for a place.

    Blocks while Airflow is asked for a connection: from async code, call it in a
    thread. The clients kept here may be used by several threads at once.

    Args:
        place: What tells places apart.
        make: Makes the client, for the first who asks, and after a while again.
    """
    with _lock:
        made, client = _clients.get(place, (0.0, None))
        if client is None or time.monotonic() - made > CLIENT_TTL:
            client = make()
            _clients[place] = (time.monotonic(), client)
        return cast("T", client)


def forget_clients() -> None:
    """Forget them all, as a test does that changes connections."""
    with _lock:
        _clients.clear()
