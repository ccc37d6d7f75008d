# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The queue for messages that nobody can wait for."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from aio_pika import DeliveryMode, Message
from aio_pika.exceptions import (
    AMQPChannelError,
    ChannelNotFoundEntity,
    DeliveryError,
    PublishError,
)

if TYPE_CHECKING:
    from aio_pika.abc import (
        AbstractChannel,
        AbstractConnection,
        AbstractIncomingMessage,
    )

    from runqy_provider.sinks.amqp.queue import AmqpQueue

log = logging.getLogger(__name__)

#: Characters of a reason that go along with a message.
LONGEST_REASON = 500


class RejectedQueue:
    """Keeps messages out of the way, on channels of its own.

    A refusal closes the channel that it comes on, and must not end the consumer.

    Args:
        queue: The queue that they came from.
        connection: The connection to its broker.
    """

    def __init__(self, queue: AmqpQueue, connection: AbstractConnection) -> None:
        self._queue = queue
        self._connection = connection
        self._channel: AbstractChannel | None = None

    async def keep(self, message: AbstractIncomingMessage, reason: str) -> bool:
        """Keep a message; when this returns True, the broker has confirmed it.

        Args:
            message: The message, which stays unacknowledged.
            reason: Why nobody can wait for it; goes along in a header.

        Returns:
            False where the broker does not let us: the message is nowhere else yet.

        Raises:
            AMQPConnectionError: The broker is away; so it is for the consumer.
        """
        name, source = self._queue.rejected, self._queue.name
        try:
            await self._publish(message, reason)
        except (AMQPChannelError, DeliveryError) as error:
            log.error(  # noqa: TRY400 - the broker's word is all there is to know
                "Queue %r (connection %r) cannot be used: %s: %s. A message that "
                "belongs there (%s) stays in queue %r, unacknowledged. Delete %r, or "
                "let us write to it.",
                name,
                self._queue.conn_id,
                type(error).__name__,
                error,
                reason,
                source,
                name,
            )
            return False
        log.warning("A message in queue %r went to %r: %s", source, name, reason)
        return True

    async def _publish(self, message: AbstractIncomingMessage, reason: str) -> None:
        kept = Message(
            message.body,
            headers={**message.headers, "x-runqy-reason": reason[:LONGEST_REASON]},
            content_type=message.content_type,
            message_id=message.message_id,
            delivery_mode=DeliveryMode.PERSISTENT,
        )
        try:
            await self._send(kept)
        except (TypeError, ValueError, OverflowError) as error:
            # What is in them can be read, but not be written again: a text that is no
            # UTF-8, for one. The body counts.
            log.warning("Headers of a message cannot be kept: %s", error)
            kept.headers = {"x-runqy-reason": reason[:LONGEST_REASON]}
            kept.content_type = kept.message_id = None
            await self._send(kept)

    async def _send(self, kept: Message) -> None:
        channel = await self._open()
        try:
            await channel.default_exchange.publish(kept, self._queue.rejected)
        except PublishError:
            # It was deleted since we last used it.
            await self._declare()
            await channel.default_exchange.publish(kept, self._queue.rejected)

    async def _open(self) -> AbstractChannel:
        if self._channel is None or self._channel.is_closed:
            await self._declare()
            self._channel = await self._connection.channel(on_return_raises=True)
        return self._channel

    async def _declare(self) -> None:
        """Create the queue if it is not there; take it as it is if it is."""
        try:
            async with self._connection.channel() as channel:
                await channel.declare_queue(self._queue.rejected, passive=True)
        except ChannelNotFoundEntity:
            async with self._connection.channel() as channel:
                await channel.declare_queue(self._queue.rejected, durable=True)
