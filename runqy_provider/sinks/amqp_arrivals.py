# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""A message queue as a source for a waiter: one consumer that fills the inbox.

Messages are taken by whichever triggerer gets them, and put into the inbox, where the
one that waits finds them. Only then are they acknowledged: whatever breaks before, the
broker gives them out again, and the inbox knows a repeat.
"""

from __future__ import annotations

import asyncio
import logging
import random
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING, Any

from aio_pika import DeliveryMode, Message

from runqy_delivery import BadDelivery, Delivery
from runqy_provider.errors import NoAccess, SinkError, SinkUnavailable
from runqy_provider.inbox.capability import DELIVERY_ID
from runqy_provider.inbox.writer import InboxWriter, Outcome, digest
from runqy_provider.redis_client import async_client
from runqy_provider.sinks.amqp_broker import BrokerSettings, amqp_errors

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Coroutine, Mapping

    from aio_pika.abc import AbstractChannel, AbstractIncomingMessage

    from runqy_provider.settings import RedisSettings
    from runqy_provider.sinks.amqp_queue import AmqpQueue
    from runqy_provider.waiting.arrival import Answer

log = logging.getLogger(__name__)

#: Messages that are under way to the inbox at once.
PREFETCH = 32

#: Seconds between two tries to put a message into an inbox that is away.
INBOX_DELAY = 2.0


class Consumer:
    """A channel that is consumed, and what came on it.

    Args:
        channel: The channel.
        writer: The inbox.
        closing: What closes it all.
    """

    def __init__(
        self, channel: AbstractChannel, writer: InboxWriter, closing: AsyncExitStack
    ) -> None:
        self.channel = channel
        self.writer = writer
        self.closing = closing
        #: Messages as they come; None when no more will.
        self.messages: asyncio.Queue[AbstractIncomingMessage | None] = asyncio.Queue()
        #: Why no more will, if the broker said so.
        self.end: BaseException | None = None

    def note_end(self, _sender: object, error: BaseException | None) -> None:
        """Note that the channel was closed."""
        self.end = error
        self.messages.put_nowait(None)


class AmqpArrivals:
    """Moves messages to the inbox; addresses are delivery ids.

    It finds nothing itself: the wait for a delivery looks into the inbox, too.

    Args:
        queue: The queue.
        redis: The Redis of the inbox.
        conn_id: The runqy connection.
        ttl: Seconds that an unread delivery stays in the inbox.
        max_body: The largest delivery that is taken, in bytes.
    """

    def __init__(
        self,
        queue: AmqpQueue,
        redis: RedisSettings,
        conn_id: str,
        *,
        ttl: int,
        max_body: int,
    ) -> None:
        self._queue = queue
        self._redis = redis
        self._conn_id = conn_id
        self._ttl = ttl
        self._max_body = max_body
        self._trouble: SinkError | None = None

    async def look(self, addresses: Collection[str]) -> Mapping[str, Answer]:
        """Return nothing, or what keeps messages from coming."""
        if isinstance(self._trouble, SinkUnavailable):
            raise self._trouble
        if self._trouble is not None:
            return dict.fromkeys(addresses, self._trouble)
        return {}

    async def hints(self) -> AsyncIterator[str | None]:
        """Consume; yield only when it breaks off, so that waits hear of it soon."""
        try:
            await self._consume()
        except SinkError as error:
            self._trouble = error
            yield None
            raise SinkUnavailable(str(error)) from error

    async def aclose(self) -> None:
        """Nothing to let go of: connections end with the consumer."""

    async def _consume(self) -> None:
        """Move messages to the inbox, one after another, until something breaks.

        Raises:
            SinkError: It broke, or it never came about.
        """
        conn_id = self._queue.conn_id
        with amqp_errors(conn_id, f"consume queue {self._queue.name!r}"):
            # aiormq may swallow a cancellation while it connects, so it is let come to
            # its end, and then taken down.
            opening = asyncio.ensure_future(self._open())
            try:
                await asyncio.wait([opening])
                consumer = opening.result()
                self._trouble = None
                await self._move(consumer)
            finally:
                await _to_its_end(_take_down(opening))

    async def _open(self) -> Consumer:
        settings = await asyncio.to_thread(BrokerSettings.fetch, self._queue.conn_id)
        async with AsyncExitStack() as stack:
            redis = async_client(self._redis, most_connections=1)
            stack.push_async_callback(redis.aclose)
            connection = await stack.enter_async_context(await settings.connect())
            channel = await connection.channel()
            await channel.set_qos(prefetch_count=PREFETCH)
            consumer = Consumer(
                channel,
                InboxWriter(redis, self._redis, self._conn_id, self._ttl),
                stack,
            )
            channel.close_callbacks.add(consumer.note_end)
            queue = await self._queue.open(channel)
            await queue.consume(consumer.messages.put)
            consumer.closing = stack.pop_all()
        return consumer

    async def _move(self, consumer: Consumer) -> None:
        task = asyncio.current_task()
        while task is None or not task.cancelling():
            message = await consumer.messages.get()
            if message is None:
                raise SinkUnavailable(
                    f"Queue {self._queue.name!r} (connection {self._queue.conn_id!r}) "
                    f"is not consumed any more: {consumer.end or 'it was closed'}"
                )
            await self._take(consumer, message)

    async def _take(self, consumer: Consumer, message: AbstractIncomingMessage) -> None:
        """Put one message where it belongs, and only then acknowledge it."""
        try:
            delivery = self._read(message.body)
            mark = digest(delivery)
        except BadDelivery as error:
            await self._reject(consumer.channel, message, str(error))
            return
        while True:
            try:
                outcome = await consumer.writer.put(delivery, message.body, mark)
            except (SinkUnavailable, NoAccess) as error:
                # Unacknowledged, it stays with the broker meanwhile.
                log.warning("A message waits for the inbox: %s", error)
                await asyncio.sleep(INBOX_DELAY * random.uniform(0.5, 1))  # noqa: S311 - not for secrets
            else:
                break
        if outcome is Outcome.CONFLICT:
            words = "another final delivery of this job came before it"
            await self._reject(consumer.channel, message, words)
            return
        await message.ack()

    def _read(self, body: bytes) -> Delivery:
        if len(body) > self._max_body:
            raise BadDelivery(
                f"it has {len(body):,} bytes; [runqy] max_body_bytes is "
                f"{self._max_body:,}"
            )
        delivery = Delivery.from_json(body)
        if not DELIVERY_ID.fullmatch(delivery.delivery_id):
            raise BadDelivery(
                f"its task_id {delivery.delivery_id[:80]!r} is none of ours"
            )
        return delivery

    async def _reject(
        self, channel: AbstractChannel, message: AbstractIncomingMessage, reason: str
    ) -> None:
        """Keep a message that nobody can wait for, in a queue of its own."""
        log.warning(
            "A message in queue %r goes to %r: %s",
            self._queue.name,
            self._queue.rejected,
            reason,
        )
        await channel.declare_queue(self._queue.rejected, durable=True)
        kept = Message(
            message.body,
            headers={**message.headers, "x-runqy-reason": reason[:500]},
            content_type=message.content_type,
            message_id=message.message_id,
            delivery_mode=DeliveryMode.PERSISTENT,
        )
        # Confirmed by the broker before the original is let go.
        await channel.default_exchange.publish(kept, self._queue.rejected)
        await message.ack()


async def _to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """Do work to its end, however often this is cancelled meanwhile.

    Work that is left goes on by itself; if the loop ends then, it is cancelled at any
    point, and aiormq leaves sockets open where that is the wrong one.
    """
    task = asyncio.ensure_future(work)
    while not task.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait([task])
    task.result()


async def _take_down(opening: asyncio.Future[Consumer]) -> None:
    await asyncio.wait([opening])
    if opening.exception() is None:
        await opening.result().closing.aclose()
