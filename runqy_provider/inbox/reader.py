# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Read deliveries from the inbox, and forget them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from runqy_delivery import BadDelivery as WireBadDelivery
from runqy_delivery import Delivery
from runqy_provider.errors import NotThere
from runqy_provider.inbox import keys
from runqy_provider.redis_client import check_size, client, redis_errors

if TYPE_CHECKING:
    from collections.abc import Sequence
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
        self._connection = connection.for_namespace(namespace)
        self._in_keys = connection.in_keys(namespace)
        self._client = client(self._connection)

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
        key = keys.delivery(self._in_keys, delivery_id)
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

    def read_small(
        self, delivery_ids: Sequence[str], most_bytes: int
    ) -> list[StoredDelivery | WireBadDelivery | None]:
        """Return small deliveries, in two round trips.

        Args:
            delivery_ids: Their ids.
            most_bytes: Size of the largest body that is read.

        Returns:
            For each: the delivery; an error where its body cannot be read; None where
            it is larger, or not there.

        Raises:
            SinkUnavailable: Redis is unavailable.
        """
        names = [keys.delivery(self._in_keys, each) for each in delivery_ids]
        with redis_errors(self._connection, "read deliveries"):
            with self._client.pipeline(transaction=False) as pipeline:
                for name in names:
                    pipeline.hstrlen(name, "body")
                sizes = pipeline.execute()
            small = [
                name
                for name, size in zip(names, sizes, strict=True)
                if 0 < size <= most_bytes
            ]
            with self._client.pipeline(transaction=False) as pipeline:
                for name in small:
                    pipeline.hmget(name, ["body", "at"])
                found = dict(zip(small, pipeline.execute(), strict=True))
        return [_stored(*found.get(name, (None, None))) for name in names]

    def forget(self, *delivery_ids: str) -> None:
        """Let deliveries expire soon: their values are kept elsewhere now."""
        with (
            redis_errors(self._connection, "mark a delivery as read"),
            self._client.pipeline(transaction=False) as pipeline,
        ):
            for delivery_id in delivery_ids:
                pipeline.expire(
                    keys.delivery(self._in_keys, delivery_id), keys.READ_TTL
                )
                pipeline.delete(
                    keys.progress(self._in_keys, delivery_id),
                    keys.refused(self._in_keys, delivery_id),
                )
            pipeline.execute()


def _stored(
    body: bytes | None, at: bytes | None
) -> StoredDelivery | WireBadDelivery | None:
    if body is None or at is None:
        return None
    try:
        return StoredDelivery(Delivery.from_json(body), len(body), float(at))
    except WireBadDelivery as error:
        return error
