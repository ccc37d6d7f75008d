# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""What the receiver must know of a connection, and where it learns it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from runqy_provider.inbox.keys import UNREAD_TTL

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from runqy_provider.connections import RedisSettings

#: The largest body that is taken by default, in bytes.
MAX_BODY = 8 * 1024 * 1024


@dataclass(frozen=True)
class Door:
    """One connection's way into its inbox.

    Attributes:
        conn_id: The runqy connection.
        redis: The Redis of its inbox.
        callback_secrets: Secrets that its capability URLs may be made with.
        signing_secrets: Secrets that its bodies must be signed with; empty: none.
    """

    conn_id: str
    redis: RedisSettings
    callback_secrets: tuple[str, ...] = field(repr=False)
    signing_secrets: tuple[str, ...] = field(default=(), repr=False)


class DoorAway(Exception):
    """It cannot be told just now whether there is such a door: come again."""


class DoorsBusy(Exception):
    """Too many unheard-of doors are being looked for: come again."""


class FindDoor(Protocol):
    """Finds doors."""

    def __call__(self, conn_id: str, *, anew: bool = False) -> Awaitable[Door | None]:
        """Return the door of a connection; None where there is no such connection.

        Args:
            conn_id: The runqy connection.
            anew: A key did not fit: look again, if the door was remembered.

        Raises:
            DoorAway: It cannot be told just now.
            DoorsBusy: Likewise, as too many others are looked for.
        """
        ...


@dataclass(frozen=True)
class Limits:
    """How much the receiver takes.

    Attributes:
        max_body: The largest body, in bytes.
        drained: By how many bytes one may be larger and is still read, and dropped.
        ttl: Seconds that an unread delivery stays.
        body_seconds: Seconds within which a body must have come whole.
        slowest: Bytes a second below which a body is given up, after ``grace``.
        grace: Seconds before that.
        in_flight: Requests at once; more are told to come back.
        for_one: Requests at once for one delivery.
    """

    max_body: int = MAX_BODY
    drained: int = 64 * 1024 * 1024
    ttl: int = UNREAD_TTL
    body_seconds: float = 60.0
    slowest: float = 16 * 1024
    grace: float = 10.0
    in_flight: int = 64
    for_one: int = 4
