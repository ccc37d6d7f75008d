# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""What every sink can do."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from runqy_delivery import Delivery, DeliveryRequest
    from runqy_provider.settings import RedisSettings, RunqySettings
    from runqy_provider.sinks.parcel import Parcel
    from runqy_provider.sinks.ticket import Ticket
    from runqy_provider.waiting.waiter import Waiter


from runqy_provider.errors import NoAccess


@dataclass(frozen=True)
class Access:
    """What a sink may need to know, fetched from Airflow by whoever uses it.

    Attributes:
        settings: The runqy connection.
        redis: The Redis of its inbox; None where that connection does not exist.
        runqy_redis: runqy's own Redis; None where the connection names none.
        base_url: Where Airflow's own receiver is; None where ``[api] base_url`` is
            not set.
        max_body: The largest delivery that the receiver takes, in bytes.
        inbox_sweep: Seconds between two looks at the inbox.
        unread_ttl: Seconds that a delivery stays in the inbox while nobody reads it.
        object_sweep: Seconds between two looks at a bucket.
        poll: Seconds between two looks for a young job at a place that does not tell.
        longest_poll: The same for an old one.
        watch: Seconds between two looks at the jobs themselves; 0: they are not.
        vanished_grace: Seconds for which a delivery is waited for once its job has
            ended.
        largest_read: Results of more bytes are not read into this process: ``open``
            raises TooLarge. None: there is no limit.
    """

    settings: RunqySettings
    redis: RedisSettings | None
    runqy_redis: RedisSettings | None
    base_url: str | None
    max_body: int
    inbox_sweep: float
    unread_ttl: int
    object_sweep: float
    poll: float
    longest_poll: float
    watch: float
    vanished_grace: float
    largest_read: int | None = None


@dataclass(frozen=True)
class Place:
    """Where a wait looks.

    Attributes:
        key: Equal for waits that can share a waiter.
        make: Makes that waiter.
        address: What the waiter knows this wait by.
        is_essential: True where nothing can come if this place is at fault; False for
            a place that only says earlier what another one holds.
        moves: True where what came is only moved to another place, which is to be
            looked at again afterwards.
    """

    key: Hashable
    make: Callable[[], Waiter]
    address: str
    is_essential: bool = True
    moves: bool = False


Follow: TypeAlias = "Callable[[Delivery, str], Parcel]"


class Sink(abc.ABC):
    """Where results go. A sink is described whole by its ``uri``."""

    #: True where somebody must move a delivery before it can be opened: news of it may
    #: come before it.
    is_moved: ClassVar[bool] = False

    #: True where the inbox itself holds the results.
    is_inbox: ClassVar[bool] = False

    #: True where a worker that cannot write there has no other way to say so.
    needs_failure_channel: ClassVar[bool] = False

    @property
    def takes_progress(self) -> bool:
        """True where its requests name a webhook, if one is set up."""
        return False

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

    def prepare(self, access: Access, delivery_id: str) -> None:  # noqa: B027 - most need nothing
        """Make room for the delivery, just before its job is enqueued.

        Raises:
            SinkError: There is no room: nothing is to be enqueued.
        """

    @abc.abstractmethod
    def where(self, access: Access, delivery_id: str) -> str:
        """Return where the result will be, if the task code puts it where it is asked.

        Raises:
            Misconfigured: That cannot be known beforehand.
        """

    @abc.abstractmethod
    def owns(self, where: str) -> bool:
        """True where ``open`` can open what arrived there."""

    @abc.abstractmethod
    def places(self, access: Access, ticket: Ticket) -> Sequence[Place]:
        """Return where the delivery may arrive.

        Raises:
            Misconfigured: The ticket, or the connection, lacks what it takes to look.
        """

    @abc.abstractmethod
    def open(self, access: Access, where: str, follow: Follow | None = None) -> Parcel:
        """Open what arrived.

        Args:
            access: What is known of the connection.
            where: Where it arrived.
            follow: Opens a result of which the delivery says that it lies elsewhere;
                this sink's own ``follow`` where not given.

        Raises:
            NotThere: It is gone.
            NoAccess: It lies where this sink may not go.
            SinkUnavailable: The place is away.
            TooLarge: It is larger than ``access.largest_read``.
            BadDelivery: It cannot be read.
        """

    def follow(self, access: Access, delivery: Delivery, url: str) -> Parcel:  # noqa: ARG002 - for those that can
        """Open a result of which a delivery says that it lies at a URL.

        Nothing is ever fetched by URL: a sink opens what lies in the one place that
        it names.

        Raises:
            NoAccess: The URL is not in this sink.
        """
        raise NoAccess(
            f"Delivery {delivery.delivery_id} says that its result lies elsewhere, at "
            f"{url.partition('?')[0]}. The sink {self.uri!r} fetches nothing: name the "
            "place, as in sink='s3://bucket/prefix', so that results are read from "
            "there and from nowhere else."
        )

    def link(self, access: Access, where: str, seconds: float) -> str | None:  # noqa: ARG002 - for those that can
        """Return a URL under which people find a result, for a while; None: no such.

        Args:
            access: What is known of the connection.
            where: Where the result lies.
            seconds: How long the URL is to work.

        Raises:
            SinkError: None can be made just now.
        """
        return None

    @abc.abstractmethod
    def nothing_arrived(self, access: Access, ticket: Ticket) -> str:
        """Say where we looked, and what to check, for a delivery that never came."""
