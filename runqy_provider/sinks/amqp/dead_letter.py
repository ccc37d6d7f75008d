# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The dead-letter queue: messages that are not deliveries of known jobs."""

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

#: The longest reason that is stored with a message, in characters.
MAX_REASON_LENGTH = 500

#: The header with the reason.
REASON_HEADER = "x-runqy-reason"


class DeadLetterQueue:
    """Publishes messages to the dead-letter queue of a queue.

    It uses its own channels: a refusal closes the channel, and must not end the
    consumer.

    Args:
        queue: The queue that the messages were consumed from.
        connection: The connection to its broker.
    """

    def __init__(self, queue: AmqpQueue, connection: AbstractConnection) -> None:
        self._queue = queue
        self._connection = connection
        self._channel: AbstractChannel | None = None

    async def publish(self, message: AbstractIncomingMessage, reason: str) -> bool:
        """Publish a copy of a message; return whether the broker has confirmed it.

        Args:
            message: The message; the caller acknowledges it.
            reason: Why it is not a delivery of a known job; sent in a header.

        Returns:
            False if the broker refused the copy: then the message must not be
            acknowledged.

        Raises:
            AMQPConnectionError: The broker is unavailable.
        """
        name, source = self._queue.rejected, self._queue.name
        try:
            await self._publish_copy(message, reason)
        except (AMQPChannelError, DeliveryError) as error:
            log.error(  # noqa: TRY400 - a traceback says nothing more
                "Queue %r (connection %r) cannot be used: %s: %s. A message that "
                "belongs there (%s) stays in queue %r, unacknowledged. Delete %r, or "
                "give the user of the connection the permission to write to it.",
                name,
                self._queue.conn_id,
                type(error).__name__,
                error,
                reason,
                source,
                name,
            )
            return False
        log.warning("A message was moved from queue %r to %r: %s", source, name, reason)
        return True

    async def _publish_copy(
        self, message: AbstractIncomingMessage, reason: str
    ) -> None:
        copy = Message(
            message.body,
            headers={**message.headers, REASON_HEADER: reason[:MAX_REASON_LENGTH]},
            content_type=message.content_type,
            message_id=message.message_id,
            delivery_mode=DeliveryMode.PERSISTENT,
        )
        try:
            await self._send(copy)
        except (TypeError, ValueError, OverflowError) as error:
            # Some headers can be decoded but not encoded again, such as a text that is
            # not UTF-8. The body matters more.
            log.warning("The headers of a message could not be copied: %s", error)
            copy.headers = {REASON_HEADER: reason[:MAX_REASON_LENGTH]}
            copy.content_type = copy.message_id = None
            await self._send(copy)

    async def _send(self, message: Message) -> None:
        channel = await self._open()
        try:
            await channel.default_exchange.publish(message, self._queue.rejected)
        except PublishError:
            # The queue was deleted since it was last used.
            await self._declare()
            await channel.default_exchange.publish(message, self._queue.rejected)

    async def _open(self) -> AbstractChannel:
        if self._channel is None or self._channel.is_closed:
            await self._declare()
            self._channel = await self._connection.channel(on_return_raises=True)
        return self._channel

    async def _declare(self) -> None:
        """Create the queue if it does not exist; its arguments are not checked."""
        try:
            async with self._connection.channel() as channel:
                await channel.declare_queue(self._queue.rejected, passive=True)
        except ChannelNotFoundEntity:
            async with self._connection.channel() as channel:
                await channel.declare_queue(self._queue.rejected, durable=True)
