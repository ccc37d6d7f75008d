# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Clients of object stores, shared by all uses of a store in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, cast

from runqy_provider.caching import TtlCache

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

#: Seconds after which a client is created again, so that a change of its connection is
#: noticed.
CLIENT_TTL = 900.0

#: Seconds after which a failed creation is retried.
RETRY_AFTER = 60.0

#: The clients of this process.
CLIENTS: TtlCache[Any] = TtlCache(CLIENT_TTL, RETRY_AFTER)


def shared_client(name: str, make: Callable[[T | None], T]) -> T:
    """Return the process's client for a store.

    Blocks while the connection is fetched from Airflow: from async code, call it in a
    thread. Several threads may use a client at once.

    Args:
        name: Identifies the client, in plain text for warnings: the connection, and the
            bucket if a client serves only one bucket.
        make: Creates the client; its argument is the previous client, None at first.

    Raises:
        Exception: What ``make`` raises, if there is no previous client to use.
    """
    return cast("T", CLIENTS.get(f"The client for {name}", make))


def clear_clients() -> None:
    """Drop all clients, so that changed connections are read again; for tests."""
    CLIENTS.clear()
