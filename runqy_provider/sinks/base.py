# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""What every sink can do."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from runqy_delivery import DeliveryRequest
    from runqy_provider.settings import RedisSettings, RunqySettings
    from runqy_provider.sinks.parcel import Parcel
    from runqy_provider.waiting.waiter import Waiter


@dataclass(frozen=True)
class Access:
    """What a sink may need to know, fetched from Airflow by whoever uses it.

    Attributes:
        settings: The runqy connection.
        redis: The Redis of its inbox; None where that connection does not exist.
        base_url: Where Airflow's own receiver is; None where ``[api] base_url`` is
            not set.
        max_body: The largest delivery that the receiver takes, in bytes.
        inbox_sweep: Seconds between two looks at the inbox.
        object_sweep: Seconds between two looks at a bucket.
    """

    settings: RunqySettings
    redis: RedisSettings | None
    base_url: str | None
    max_body: int
    inbox_sweep: float
    object_sweep: float


@dataclass(frozen=True)
class Place:
    """Where a wait looks.

    Attributes:
        key: Equal for waits that can share a waiter.
        make: Makes that waiter.
        address: What the waiter knows this wait by.
    """

    key: Hashable
    make: Callable[[], Waiter]
    address: str


class Sink(abc.ABC):
    """Where results go. A sink is described whole by its ``uri``."""

    @property
    @abc.abstractmethod
    def uri(self) -> str:
        """The sink as a text; ``parse_sink`` reads it back."""

    @abc.abstractmethod
    def check(self, access: Access) -> None:
        """Find out before a job is enqueued whether its result could come home.

        Raises:
            Misconfigured: A field of the connection is missing.
            SinkError: The place is away, is not there, or refuses us.
        """

    @abc.abstractmethod
    def request(
        self, access: Access, delivery_id: str, expires: float
    ) -> DeliveryRequest:
        """Return what to ask of the task code.

        Args:
            access: What is known of the connection.
            delivery_id: Id of the delivery.
            expires: Until when the request must work, in seconds since 1970.
        """

    @abc.abstractmethod
    def places(self, access: Access, delivery_id: str) -> Sequence[Place]:
        """Return where the delivery may arrive."""

    @abc.abstractmethod
    def open(self, access: Access, where: str) -> Parcel:
        """Open what arrived.

        Raises:
            NotThere: It is gone.
            NoAccess: It lies where this sink may not go.
            SinkUnavailable: The place is away.
            BadDelivery: It cannot be read.
        """

    @abc.abstractmethod
    def nothing_arrived(self, access: Access, delivery_id: str) -> str:
        """Say where we looked, and what to check, for a delivery that never came."""
