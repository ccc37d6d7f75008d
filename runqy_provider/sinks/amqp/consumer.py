# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""A queue that is consumed: messages as they come, and the end of them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aio_pika.exceptions import AMQPChannelError

from runqy_provider.errors import SinkUnavailable
from runqy_provider.sinks.amqp.dead_letter import RejectedQueue

if TYPE_CHECKING:
    from aio_pika.abc import (
        AbstractChannel,
        AbstractConnection,
        AbstractIncomingMessage,
        AbstractQueue,
        ConsumerTag,
    )
    from aiormq import spec

    from runqy_provider.sinks.amqp.queue import AmqpQueue

#: Messages that the broker gives out before one of them is acknowledged.
PREFETCH = 32

#: Messages that are left unacknowledged before they get a consumer of their own.
MOST_HELD = PREFETCH // 2


class Consumer:
    """Messages of one queue, one after another.

    Args:
        queue: The queue.
        connection: The connection to its broker; whoever made it closes it.
    """

    def __init__(self, queue: AmqpQueue, connection: AbstractConnection) -> None:
        self._queue = queue
        self._connection = connection
        self._rejected = RejectedQueue(queue, connection)
        self._messages: asyncio.Queue[AbstractIncomingMessage | None] = asyncio.Queue()
        self._end: str | None = None
        self._held = 0

    async def start(self) -> None:
        """Open a channel, declare the queue, and consume it."""
        channel = self._channel = await self._connection.channel()
        await channel.set_qos(prefetch_count=PREFETCH)
        channel.close_callbacks.add(self._note_close)
        underlay = await channel.get_underlay_channel()
        underlay.on_consumer_cancel_callbacks.add(self._note_cancel)
        self._source: AbstractQueue = await self._queue.open(channel)
        self._tag: ConsumerTag = await self._source.consume(self._messages.put)

    async def next(self) -> AbstractIncomingMessage:
        """Return the next message.

        Raises:
            SinkUnavailable: No more will come.
        """
        message = await self._messages.get()
        if message is None:
            raise SinkUnavailable(
                f"Queue {self._queue.name!r} (connection {self._queue.conn_id!r}) is "
                f"not consumed any more: {self._end}"
            )
        return message

    async def is_drained(self) -> bool:
        """Tell whether no message waits any more, at the broker or here."""
        if not self._messages.empty():
            return False
        name = self._queue.name
        try:
            # On a channel of its own, which a refusal closes.
            async with self._connection.channel() as channel:
                queue = await channel.declare_queue(name, passive=True)
        except AMQPChannelError:
            return True  # a broker that does not say, or a queue that is gone
        if queue.declaration_result.message_count:
            return False
        # The last ones may still be on their way to us: what is asked on their own
        # channel is answered after them.
        await self._channel.set_qos(prefetch_count=PREFETCH)
        return self._messages.empty()

    async def keep_elsewhere(
        self, message: AbstractIncomingMessage, reason: str
    ) -> None:
        """Move a message to the queue for those that nobody can wait for.

        Where that queue cannot be used, the message stays with the broker: it is left
        unacknowledged, and given out again once this consumer has ended.
        """
        if await self._rejected.keep(message, reason):
            await message.ack()
            return
        self._held += 1
        if self._held < MOST_HELD:
            return
        # What is unacknowledged counts against the consumer that it was given to; a
        # new one is given messages again, however many are left to the old one.
        self._held, old = 0, self._tag
        self._tag = await self._source.consume(self._messages.put)
        await self._source.cancel(old)

    def _note_close(
        self, _channel: AbstractChannel | None, error: BaseException | None
    ) -> None:
        self._note_end(f"{type(error).__name__}: {error}" if error else "it was closed")

    def _note_cancel(self, _frame: spec.Basic.Cancel) -> None:
        self._note_end("the broker cancelled the consumer; was the queue deleted?")

    def _note_end(self, words: str) -> None:
        self._end = self._end or words
        self._messages.put_nowait(None)
