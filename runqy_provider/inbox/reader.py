# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Read deliveries from the inbox, and forget them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self, cast

from runqy_delivery import Delivery
from runqy_provider.errors import NotThere
from runqy_provider.inbox import keys
from runqy_provider.redis_client import check_size, client, redis_errors

if TYPE_CHECKING:
    from types import TracebackType

    from runqy_provider.connections import RedisSettings


@dataclass(frozen=True)
class Letter:
    """A delivery as it lies in the inbox.

    Attributes:
        delivery: What it says.
        size: Bytes of its body as it came.
        delivered_at: When it came, in seconds since 1970.
    """

    delivery: Delivery
    size: int
    delivered_at: float


class InboxReader:
    """Reads one box of the inbox; use it as a context manager.

    Args:
        settings: How to reach the Redis of the inbox.
        box: Which; see ``keys``.
    """

    def __init__(self, settings: RedisSettings, box: str) -> None:
        self._settings = settings
        self._box = box
        self._client = client(settings)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._client.close()

    def read(self, delivery_id: str, largest: int | None = None) -> Letter:
        """Return a delivery.

        Args:
            delivery_id: Which.
            largest: The most bytes that its body may have; None: any number.

        Raises:
            TooLarge: Its body is larger, and was not read.
            NotThere: It never came, or it was forgotten.
            SinkUnavailable: Redis is away.
            BadDelivery: What lies there cannot be read.
        """
        key = keys.delivery(self._box, delivery_id)
        with redis_errors(self._settings, "read a delivery"):
            check_size(self._client, key, "body", largest)
            body, at = cast(
                "list[bytes | None]", self._client.hmget(key, ["body", "at"])
            )
        if body is None or at is None:
            raise NotThere(
                f"Delivery {delivery_id} is not in the inbox (Redis at "
                f"{self._settings.address}, key {key}). Unread deliveries stay for "
                f"{keys.UNREAD_TTL // 86400} days, read ones for "
                f"{keys.READ_TTL // 60} minutes."
            )
        return Letter(Delivery.from_json(body), len(body), float(at))

    def forget(self, delivery_id: str) -> None:
        """Let a delivery expire soon: its value was read and stands elsewhere now."""
        with redis_errors(self._settings, "mark a delivery as read"):
            self._client.expire(keys.delivery(self._box, delivery_id), keys.READ_TTL)
            self._client.delete(keys.progress(self._box, delivery_id))
