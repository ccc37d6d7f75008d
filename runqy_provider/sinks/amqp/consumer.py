# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""A queue of results, and its consumer: messages in order, and rejected ones."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aio_pika import DeliveryMode, Message
from aio_pika.exceptions import (
    AMQPChannelError,
    ChannelNotFoundEntity,
    DeliveryError,
    PublishError,
)

from runqy_provider.errors import Misconfigured, SinkUnavailable
from runqy_provider.inbox import keys

if TYPE_CHECKING:
    from aio_pika.abc import (
        AbstractChannel,
        AbstractConnection,
        AbstractIncomingMessage,
        AbstractQueue,
        ConsumerTag,
    )
    from aiormq import spec


#: The queue in runqy's guide.
DEFAULT_QUEUE = "task_results"

#: The longest name of a queue or an exchange, in bytes. AMQP allows 255, but the
#: dead-letter queue adds a suffix to the name.
MAX_NAME_BYTES = 200

#: The most unacknowledged messages that the broker sends to a consumer.
PREFETCH = 32

#: The most messages that are left unacknowledged before the consumer is replaced.
MAX_UNACKED = PREFETCH // 2

log = logging.getLogger(__name__)

#: The longest reason that is stored with a message, in characters.
MAX_REASON_LENGTH = 500

#: The header with the reason.
REASON_HEADER = "x-runqy-reason"


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


class Consumer:
    """Consumes the messages of one queue.

    Args:
        queue: The queue.
        connection: The connection to its broker; the caller closes it.
    """

    def __init__(self, queue: AmqpQueue, connection: AbstractConnection) -> None:
        self._queue = queue
        self._connection = connection
        self._dead_letters = DeadLetterQueue(queue, connection)
        self._messages: asyncio.Queue[AbstractIncomingMessage | None] = asyncio.Queue()
        self._end_reason: str | None = None
        self._unacked = 0

    async def start(self) -> None:
        """Open a channel, declare the queue, and start to consume it."""
        channel = self._channel = await self._connection.channel()
        await channel.set_qos(prefetch_count=PREFETCH)
        channel.close_callbacks.add(self._on_close)
        underlay = await channel.get_underlay_channel()
        underlay.on_consumer_cancel_callbacks.add(self._on_cancel)
        self._source: AbstractQueue = await self._queue.open(channel)
        self._tag: ConsumerTag = await self._source.consume(self._messages.put)

    async def next(self) -> AbstractIncomingMessage:
        """Return the next message.

        Raises:
            SinkUnavailable: The consumer has ended.
        """
        message = await self._messages.get()
        if message is None:
            raise SinkUnavailable(
                f"Queue {self._queue.name!r} (connection {self._queue.conn_id!r}) is "
                f"not consumed any more: {self._end_reason}"
            )
        return message

    async def is_drained(self) -> bool:
        """Return whether no message is left at the broker or here."""
        if not self._messages.empty():
            return False
        name = self._queue.name
        try:
            # On its own channel: an error closes the channel.
            async with self._connection.channel() as channel:
                queue = await channel.declare_queue(name, passive=True)
        except AMQPChannelError:
            return True  # the broker does not report the count, or the queue is gone
        if queue.declaration_result.message_count:
            return False
        # The last messages may still be on their way: on their own channel the response
        # to a request would arrive after them.
        await self._channel.set_qos(prefetch_count=PREFETCH)
        return self._messages.empty()

    async def dead_letter(self, message: AbstractIncomingMessage, reason: str) -> None:
        """Move a message to the dead-letter queue: it is not a delivery of a known job.

        If that queue cannot be used, the message stays in its own queue: it is left
        unacknowledged, and delivered again after this consumer has ended.
        """
        if await self._dead_letters.publish(message, reason):
            await message.ack()
            return
        self._unacked += 1
        if self._unacked < MAX_UNACKED:
            return
        # Unacknowledged messages count against the prefetch of the consumer that they
        # were sent to; a new consumer starts with a fresh window.
        self._unacked, old = 0, self._tag
        self._tag = await self._source.consume(self._messages.put)
        await self._source.cancel(old)

    def _on_close(
        self, _channel: AbstractChannel | None, error: BaseException | None
    ) -> None:
        self._end(f"{type(error).__name__}: {error}" if error else "it was closed")

    def _on_cancel(self, _frame: spec.Basic.Cancel) -> None:
        self._end("the broker cancelled the consumer; was the queue deleted?")

    def _end(self, reason: str) -> None:
        self._end_reason = self._end_reason or reason
        self._messages.put_nowait(None)


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
