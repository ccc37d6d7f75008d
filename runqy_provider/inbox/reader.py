# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Read deliveries from the inbox, and forget them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from runqy_delivery import Delivery
from runqy_provider.errors import NotThere
from runqy_provider.inbox import keys
from runqy_provider.redis_client import check_size, client, redis_errors

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from runqy_provider.connections import RedisConnection


@dataclass(frozen=True)
class StoredDelivery:
    """A delivery as it is stored in the inbox.

    Attributes:
        delivery: The delivery.
        size: Size of its body, in bytes.
        delivered_at: When it arrived, in seconds since 1970.
    """

    delivery: Delivery
    size: int
    delivered_at: float


class InboxReader:
    """Reads one namespace of the inbox; use it as a context manager.

    Args:
        connection: The Redis of the inbox.
        namespace: The namespace; see ``keys``.
    """

    def __init__(self, connection: RedisConnection, namespace: str) -> None:
        self._connection = connection
        self._namespace = namespace
        self._client = client(connection)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._client.close()

    def read(self, delivery_id: str, max_bytes: int | None = None) -> StoredDelivery:
        """Return a delivery.

        Args:
            delivery_id: Id of the delivery.
            max_bytes: Largest body that is read; None: any.

        Raises:
            TooLarge: Its body is larger, and was not read.
            NotThere: It never arrived, or it has expired.
            SinkUnavailable: Redis is unavailable.
            BadDelivery: The stored body cannot be read.
        """
        key = keys.delivery(self._namespace, delivery_id)
        with redis_errors(self._connection, "read a delivery"):
            check_size(self._client, key, "body", max_bytes)
            body, at = cast(
                "list[bytes | None]", self._client.hmget(key, ["body", "at"])
            )
        if body is None or at is None:
            raise NotThere(
                f"Delivery {delivery_id} is not in the inbox (Redis at "
                f"{self._connection.address}, key {key}). Unread deliveries expire "
                "after [runqy] unread_ttl_seconds, read ones after "
                f"{keys.READ_TTL // 60} minutes."
            )
        return StoredDelivery(Delivery.from_json(body), len(body), float(at))

    def forget(self, delivery_id: str) -> None:
        """Let a delivery expire soon: its value was read, and is in XCom now."""
        with redis_errors(self._connection, "mark a delivery as read"):
            self._client.expire(
                keys.delivery(self._namespace, delivery_id), keys.READ_TTL
            )
            self._client.delete(keys.progress(self._namespace, delivery_id))
