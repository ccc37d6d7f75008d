# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The sink ``amqp://conn_id/queue``: a message, moved to the inbox as it comes."""

from __future__ import annotations

import asyncio
import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from runqy_delivery import DeliveryRequest
from runqy_provider.errors import Misconfigured
from runqy_provider.inbox import keys
from runqy_provider.sinks import inbox as inbox_parcels
from runqy_provider.sinks.amqp.broker import BrokerSettings, amqp_errors
from runqy_provider.sinks.amqp.queue import DEFAULT_QUEUE, AmqpQueue
from runqy_provider.sinks.amqp.source import AmqpArrivals
from runqy_provider.sinks.base import Sink
from runqy_provider.waiters.source import Place
from runqy_provider.waiters.waiter import Waiter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runqy_provider.context import Access
    from runqy_provider.models import Ticket
    from runqy_provider.sinks.base import Follow
    from runqy_provider.sinks.result import Parcel

SCHEME = "amqp"


@dataclass(frozen=True)
class AmqpSink(Sink):
    """Results in a message queue, RabbitMQ's for one.

    Args:
        queue: The queue, and the way to it.
    """

    queue: AmqpQueue
    is_moved: ClassVar[bool] = True
    is_inbox: ClassVar[bool] = True
    needs_failure_channel: ClassVar[bool] = True

    @property
    def uri(self) -> str:
        """The sink as a text."""
        options = {}
        if self.queue.exchange:
            options["exchange"] = self.queue.exchange
        if self.queue.routing_key is not None:
            options["routing_key"] = self.queue.routing_key
        if not self.queue.declare:
            options["declare"] = "false"
        query = f"?{urlencode(options)}" if options else ""
        name = quote(self.queue.name, safe="")
        return f"{SCHEME}://{self.queue.conn_id}/{name}{query}"

    def check(self, access: Access) -> None:
        """Ask whether the inbox can be reached, and declare the queue."""
        inbox_parcels.check(access)
        asyncio.run(self._declare())

    def request(
        self,
        access: Access,
        delivery_id: str,
        expires: float,  # noqa: ARG002 - nothing expires
    ) -> DeliveryRequest:
        """Ask for a message."""
        return DeliveryRequest(
            delivery_id,
            sink="amqp",
            amqp={
                "queue": self.queue.name,
                "exchange": self.queue.exchange,
                "routing_key": self.queue.key,
            },
            max_bytes=access.max_body,
        )

    def where(self, access: Access, delivery_id: str) -> str:
        """Return the delivery's address in the inbox."""
        return inbox_parcels.where(access, delivery_id, self.queue.box)

    def owns(self, where: str) -> bool:
        """True for what the queue brought to the inbox."""
        return where.startswith(f"{inbox_parcels.SCHEME}{self.queue.box}/")

    def places(self, access: Access, ticket: Ticket) -> Sequence[Place]:
        """Return the inbox, and the queue whose messages are moved there."""
        inbox = inbox_parcels.place(access, ticket.delivery_id, self.queue.box)
        redis = inbox_parcels.inbox_redis(access)

        def make() -> Waiter:
            source = AmqpArrivals(
                self.queue,
                redis,
                ttl=access.unread_ttl,
                max_body=access.max_body,
            )
            return Waiter(source, access.inbox_sweep)

        key = (SCHEME, self.queue, redis)
        return [inbox, Place(key, make, ticket.delivery_id, moves=True)]

    def open(self, access: Access, where: str, follow: Follow | None = None) -> Parcel:
        """Open the delivery in the inbox."""
        if follow is None:
            follow = functools.partial(self.follow, access)
        return inbox_parcels.open_letter(access, where, follow)

    def nothing_arrived(self, access: Access, ticket: Ticket) -> str:
        """Say which queue had no message."""
        redis = inbox_parcels.inbox_redis(access)
        return (
            f"No message with task_id {ticket.delivery_id!r} came to queue "
            f"{self.queue.name!r} (connection {self.queue.conn_id!r}); messages are "
            f"moved to the inbox (Redis at {redis.address}, key "
            f"{keys.delivery(self.queue.box, ticket.delivery_id)}). Check that the "
            "task code publishes there, its log, and the queue "
            f"{self.queue.rejected!r} for what was no delivery."
        )

    async def _declare(self) -> None:
        conn_id = self.queue.conn_id
        settings = await asyncio.to_thread(BrokerSettings.fetch, conn_id)
        with amqp_errors(conn_id, f"use queue {self.queue.name!r}"):
            async with await settings.connect() as connection:
                await self.queue.open(await connection.channel())


def amqp_sink(uri: str) -> AmqpSink:
    """Return the sink that a URI means.

    Raises:
        Misconfigured: An option is unknown, or the names make no sense.
    """
    parts = urlsplit(uri)
    options = dict(parse_qsl(parts.query))
    exchange, key = options.pop("exchange", ""), options.pop("routing_key", None)
    declare = options.pop("declare", "true")
    if options:
        raise Misconfigured(
            "A sink in a message queue knows the options exchange, routing_key and "
            f"declare, not {', '.join(sorted(options))}."
        )
    if declare not in ("true", "false"):
        raise Misconfigured(f"declare of a sink is true or false, not {declare!r}.")
    if not parts.netloc:
        raise Misconfigured(
            f"{uri!r} names no connection: a sink in a message queue is written "
            "amqp://conn_id/queue."
        )
    name = unquote(parts.path.removeprefix("/")) or DEFAULT_QUEUE
    return AmqpSink(AmqpQueue(parts.netloc, name, exchange, key, declare == "true"))
