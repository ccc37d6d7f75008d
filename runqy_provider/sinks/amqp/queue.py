# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""A queue of results: its names, and how it is declared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from runqy_provider.errors import Misconfigured
from runqy_provider.inbox import keys

if TYPE_CHECKING:
    from aio_pika.abc import AbstractChannel, AbstractQueue

#: The queue of runqy's guide.
DEFAULT_QUEUE = "task_results"

#: The longest name that AMQP has room for, in bytes.
LONGEST_NAME = 200


@dataclass(frozen=True)
class AmqpQueue:
    """A durable queue, and the way to it.

    Attributes:
        conn_id: The Airflow connection of its broker.
        name: Its name.
        exchange: The exchange that task code publishes to; "" is the broker's own,
            which knows queues by their names.
        routing_key: The key that task code publishes with; the queue's name where not
            given.
        declare: Create it as durable if it is not there; False takes it as it is.
    """

    conn_id: str
    name: str = DEFAULT_QUEUE
    exchange: str = ""
    routing_key: str | None = None
    declare: bool = True

    def __post_init__(self) -> None:
        for name in (self.name, self.exchange, self.key):
            if len(name.encode()) > LONGEST_NAME or name.startswith("amq."):
                raise Misconfigured(
                    f"{name[:80]!r} is no name for a queue or an exchange: up to "
                    f"{LONGEST_NAME} bytes, and not with 'amq.' first."
                )

    @property
    def key(self) -> str:
        """The routing key."""
        return self.routing_key or self.name

    @property
    def rejected(self) -> str:
        """The queue for messages that are no deliveries of ours."""
        return f"{self.name}.rejected"

    @property
    def box(self) -> str:
        """Where its deliveries lie in the inbox, whoever consumes them."""
        return keys.queue_box(self.conn_id, self.name)

    async def open(self, channel: AbstractChannel) -> AbstractQueue:
        """Declare the queue on a channel, and bind it to its exchange."""
        queue = await channel.declare_queue(
            self.name, durable=self.declare, passive=not self.declare
        )
        if self.exchange:
            exchange = await channel.get_exchange(self.exchange, ensure=True)
            await queue.bind(exchange, self.key)
        return queue
