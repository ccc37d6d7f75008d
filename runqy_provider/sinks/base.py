# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""What every sink can do."""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING, ClassVar, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from runqy_delivery import Delivery, DeliveryRequest
    from runqy_provider.context import Access
    from runqy_provider.models import Ticket
    from runqy_provider.sinks.result import Parcel
    from runqy_provider.waiters.source import Place


from runqy_provider.errors import NoAccess

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
