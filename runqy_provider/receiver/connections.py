# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""What the receiver needs to know of a connection, and how it looks it up."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from runqy_provider.config import Config

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from runqy_provider.redis_connection import RedisConnection


@dataclass(frozen=True)
class CallbackConnection:
    """One runqy connection, as the receiver needs it.

    Attributes:
        conn_id: The runqy connection.
        redis: The Redis of its inbox.
        callback_secrets: Secrets that its callback URLs may be signed with.
        signing_secrets: Secrets that its bodies must be signed with; if empty, they
            need not be signed.
    """

    conn_id: str
    redis: RedisConnection
    callback_secrets: tuple[str, ...] = field(repr=False)
    signing_secrets: tuple[str, ...] = field(default=(), repr=False)


class LookupUnavailable(Exception):
    """The connection cannot be looked up at the moment: the sender should retry."""


class LookupThrottled(Exception):
    """Too many unknown connections are being looked up: the sender should retry."""


class ConnectionLookup(Protocol):
    """Finds the connection of a callback URL."""

    def __call__(
        self, conn_id: str, /, *, refresh: bool = False
    ) -> Awaitable[CallbackConnection | None]:
        """Return a connection; None if it does not exist.

        Args:
            conn_id: The runqy connection.
            refresh: A secret did not match: look it up again, if it was cached.

        Raises:
            LookupUnavailable: It cannot be looked up at the moment.
            LookupThrottled: Too many unknown connections are being looked up.
        """


@dataclass(frozen=True)
class Limits:
    """How much the receiver accepts.

    Attributes:
        max_body_bytes: The largest body, in bytes.
        max_drain_bytes: A body that is too large by up to this many bytes is read to
            its end and dropped, so that its sender sees the answer.
        ttl: Seconds that an unread delivery is kept.
        body_seconds: Seconds within which a body must have arrived.
        min_bytes_per_second: A body that is slower than this, after ``grace``, is
            rejected.
        grace: Seconds before that.
        max_in_flight: Requests at once; senders of more are told to retry.
        max_in_flight_per_delivery: Requests at once for one delivery.
    """

    max_body_bytes: int = Config.max_body_bytes
    max_drain_bytes: int = 64 * 1024 * 1024
    ttl: int = Config.unread_ttl_seconds
    body_seconds: float = 60.0
    min_bytes_per_second: float = 16 * 1024
    grace: float = 10.0
    max_in_flight: int = 64
    max_in_flight_per_delivery: int = 4
