# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Records of the last deliveries: what was accepted, what was rejected, and why."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from runqy_provider.inbox import keys
from runqy_provider.sanitize import one_line

if TYPE_CHECKING:
    from redis.asyncio import Redis
    from typing_extensions import Self

#: How many records each list keeps.
MOST_RECORDS = 100

#: The longest outcome that is kept, in characters.
LONGEST_OUTCOME = 300


@dataclass(frozen=True)
class DeliveryRecord:
    """What became of one delivery, or of several that are alike.

    Attributes:
        at: When it arrived, in seconds since 1970.
        delivery_id: Its id, as the sender gave it.
        status: ``completed`` or ``failed``; empty where it could not be read.
        size: Size of its body, in bytes; 0 where it was not read.
        count: How many there were, of which this was the last.
        outcome: ``stored`` or ``repeated``; or why it was rejected.
    """

    at: float
    delivery_id: str
    status: str = ""
    size: int = 0
    count: int = 1
    outcome: str = ""

    @classmethod
    def from_entry(cls, entry: bytes) -> Self:
        """Read an entry of a list, of this version or a newer one."""
        outcome, _, text = entry.decode("utf-8", "replace").partition("\n")
        kept = json.loads(text)
        return cls(
            kept["at"],
            kept["delivery_id"],
            kept.get("status", ""),
            kept.get("size", 0),
            kept.get("count", 1),
            outcome,
        )

    def to_json(self) -> str:
        """Return all but the outcome: the script that stores a delivery adds that."""
        fields = {k: v for k, v in vars(self).items() if k != "outcome"}
        return json.dumps(fields)

    def to_entry(self) -> str:
        """Return the entry of a list."""
        return f"{one_line(self.outcome, LONGEST_OUTCOME)}\n{self.to_json()}"


@dataclass(frozen=True)
class RecentDeliveries:
    """The last deliveries of one namespace, newest first.

    Attributes:
        accepted: Those that were stored, or were stored before.
        rejected: Those that were not, with the reason.
    """

    accepted: tuple[DeliveryRecord, ...] = ()
    rejected: tuple[DeliveryRecord, ...] = ()


async def read_recent(client: Redis, namespace: str, most: int) -> RecentDeliveries:
    """Return the last deliveries, in one round trip.

    Args:
        client: A client of the inbox's Redis.
        namespace: The namespace as it is in the keys; see ``keys``.
        most: How many of each.

    Raises:
        RedisError: Redis is unavailable, or denies access.
    """
    lists = (
        keys.accepted(namespace),
        keys.rejected(namespace),
        keys.bad_url(namespace),
    )
    async with client.pipeline(transaction=False) as pipeline:
        for key in lists:
            pipeline.lrange(key, 0, most - 1)
        rows = cast("list[list[bytes]]", await pipeline.execute())
    accepted, rejected, bad_url = (
        [DeliveryRecord.from_entry(entry) for entry in row] for row in rows
    )
    newest = sorted(rejected + bad_url, key=lambda record: record.at, reverse=True)
    return RecentDeliveries(tuple(accepted), tuple(newest[:most]))
