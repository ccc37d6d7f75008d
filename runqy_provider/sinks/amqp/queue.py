# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""A queue of results: its name and exchange, and how it is declared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from runqy_provider.errors import Misconfigured
from runqy_provider.inbox import keys

if TYPE_CHECKING:
    from aio_pika.abc import AbstractChannel, AbstractQueue

#: The queue in runqy's guide.
DEFAULT_QUEUE = "task_results"

#: The longest name of a queue or an exchange, in bytes. AMQP allows 255, but the
#: dead-letter queue adds a suffix to the name.
MAX_NAME_BYTES = 200


@dataclass(frozen=True)
class AmqpQueue:
    """A durable queue, and the exchange that routes messages to it.

    Attributes:
        conn_id: The Airflow connection of its broker.
        name: Name of the queue.
        exchange: The exchange that task code publishes to; "" is the broker's default
            exchange, which routes by the name of the queue.
        routing_key: The key that task code publishes with; by default the queue's
            name.
        declare: Whether to create the queue as durable if it does not exist. If False,
            it must exist, and may have any arguments.
    """

    conn_id: str
    name: str = DEFAULT_QUEUE
    exchange: str = ""
    routing_key: str | None = None
    declare: bool = True

    def __post_init__(self) -> None:
        for name in (self.name, self.exchange, self.key):
            if len(name.encode()) > MAX_NAME_BYTES or name.startswith("amq."):
                raise Misconfigured(
                    f"{name[:80]!r} is not a valid name of a queue or an exchange: use "
                    f"up to {MAX_NAME_BYTES} bytes, and do not begin with 'amq.'."
                )

    @property
    def key(self) -> str:
        return self.routing_key or self.name

    @property
    def rejected(self) -> str:
        """Name of the dead-letter queue."""
        return f"{self.name}.rejected"

    @property
    def namespace(self) -> str:
        """The namespace of the inbox that its messages are moved to."""
        return keys.queue_namespace(self.conn_id, self.name)

    async def open(self, channel: AbstractChannel) -> AbstractQueue:
        """Declare the queue on a channel, and bind it to its exchange."""
        queue = await channel.declare_queue(
            self.name, durable=self.declare, passive=not self.declare
        )
        if self.exchange:
            exchange = await channel.get_exchange(self.exchange, ensure=True)
            await queue.bind(exchange, self.key)
        return queue
