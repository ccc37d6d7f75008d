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
import re
import time
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING, Any

from runqy_delivery import BadDelivery, Delivery
from runqy_provider.errors import (
    Misconfigured,
    NoAccess,
    SinkError,
    SinkUnavailable,
)
from runqy_provider.inbox.callback_url import DELIVERY_ID
from runqy_provider.inbox.writer import InboxWriter, Outcome, digest
from runqy_provider.redis_client import async_client
from runqy_provider.sinks.amqp.broker import BrokerSettings, amqp_errors
from runqy_provider.sinks.amqp.consumer import Consumer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Coroutine, Mapping

    from aio_pika.abc import AbstractIncomingMessage

    from runqy_provider.connections import RedisSettings
    from runqy_provider.sinks.amqp.queue import AmqpQueue
    from runqy_provider.waiters.source import Answer

log = logging.getLogger(__name__)

#: Seconds between two tries to put a message into an inbox that is away.
INBOX_DELAY = 2.0

#: Seconds that a look waits for messages that came before it to be moved; less than a
#: look may take.
CATCH_UP_PATIENCE = 10.0

#: Seconds between two questions whether they are.
CATCH_UP_PAUSE = 0.05


class AmqpArrivals:
    """Moves messages to the inbox; addresses are delivery ids.

    It finds nothing itself: the wait for a delivery looks into the inbox, too.

    Args:
        queue: The queue.
        redis: The Redis of the inbox.
        ttl: Seconds that an unread delivery stays in the inbox.
        max_body: The largest delivery that is taken, in bytes.
    """

    def __init__(
        self, queue: AmqpQueue, redis: RedisSettings, *, ttl: int, max_body: int
    ) -> None:
        self._queue = queue
        self._redis = redis
        self._ttl = ttl
        self._max_body = max_body
        self._awaited = Awaited()
        self._trouble: SinkError | None = None
        self._consumer: Consumer | None = None
        self._is_moving = False
        self._is_caught_up = False

    async def look(self, addresses: Collection[str]) -> Mapping[str, Answer]:
        """Return nothing, once what came before is in the inbox.

        Raises:
            SinkUnavailable: Something keeps messages from coming, or they are many:
                one of them may be what is looked for.
        """
        self._awaited.add(addresses)
        await self._catch_up()
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
        except Misconfigured as error:
            # It was right when the job was enqueued, and may be again before it ends;
            # and Airflow has no other word where it cannot be asked for a connection.
            self._trouble = SinkUnavailable(str(error))
        trouble = self._trouble
        if trouble is not None:
            yield None
            raise SinkUnavailable(str(trouble)) from trouble

    async def _catch_up(self) -> None:
        """Wait until the queue was seen empty since its consumer began."""
        name, conn_id = self._queue.name, self._queue.conn_id
        end = time.monotonic() + CATCH_UP_PATIENCE
        was_drained = False
        while not self._is_caught_up and self._trouble is None:
            consumer = self._consumer
            if consumer is not None and not self._is_moving:
                with amqp_errors(conn_id, f"look at queue {name!r}"):
                    is_drained = await consumer.is_drained()
                is_drained &= not self._is_moving and consumer is self._consumer
                # Seen twice: a message that has come is handed on a turn later.
                self._is_caught_up = is_drained and was_drained
                if self._is_caught_up:
                    return
                was_drained = is_drained
            if time.monotonic() >= end:
                raise SinkUnavailable(
                    f"Queue {name!r} (connection {conn_id!r}) is not consumed yet, or "
                    "has messages that are still being moved to the inbox."
                )
            await asyncio.sleep(CATCH_UP_PAUSE)

    async def aclose(self) -> None:
        """Forget the trouble there was; connections end with the consumer."""
        self._trouble = None

    async def _consume(self) -> None:
        """Move messages to the inbox, one after another, until something breaks.

        Raises:
            SinkError: It broke, or it never came about.
            Misconfigured: There is no such connection just now, or it lacks a field.
        """
        conn_id = self._queue.conn_id
        with amqp_errors(conn_id, f"consume queue {self._queue.name!r}"):
            # aiormq may swallow a cancellation while it connects, so it is let come to
            # its end, and then taken down.
            opening = asyncio.ensure_future(self._open())
            try:
                await asyncio.wait([opening])
                if opening.cancelled():
                    # aiormq's way to say that its heartbeats had no answer.
                    raise SinkUnavailable(
                        f"The broker of connection {conn_id!r} fell silent while queue "
                        f"{self._queue.name!r} was being opened."
                    )
                consumer, writer, _ = opening.result()
                self._trouble, self._consumer = None, consumer
                await self._move(consumer, writer)
            finally:
                self._consumer, self._is_caught_up = None, False
                await _to_its_end(_take_down(opening))

    async def _open(self) -> tuple[Consumer, InboxWriter, AsyncExitStack]:
        settings = await asyncio.to_thread(BrokerSettings.fetch, self._queue.conn_id)
        async with AsyncExitStack() as stack:
            redis = async_client(self._redis, most_connections=1)
            stack.push_async_callback(redis.aclose)
            connection = await stack.enter_async_context(await settings.connect())
            consumer = Consumer(self._queue, connection)
            await consumer.start()
            writer = InboxWriter(redis, self._redis, self._queue.box, self._ttl)
            return consumer, writer, stack.pop_all()

    async def _move(self, consumer: Consumer, writer: InboxWriter) -> None:
        task = asyncio.current_task()
        while task is None or not task.cancelling():
            message = await consumer.next()
            self._is_moving = True
            try:
                await self._take(consumer, writer, message)
            finally:
                self._is_moving = False

    async def _take(
        self, consumer: Consumer, writer: InboxWriter, message: AbstractIncomingMessage
    ) -> None:
        """Put one message where it belongs, and only then acknowledge it."""
        try:
            delivery = self._read(message.body)
            mark = digest(delivery)
        except BadDelivery as error:
            await consumer.keep_elsewhere(message, str(error))
            return
        while True:
            try:
                outcome = await writer.put(delivery, message.body, mark)
            except (SinkUnavailable, NoAccess) as error:
                # Unacknowledged, it stays with the broker meanwhile.
                log.warning("A message waits for the inbox: %s", error)
                await asyncio.sleep(INBOX_DELAY * random.uniform(0.5, 1))  # noqa: S311 - not for secrets
            else:
                break
        if outcome is Outcome.CONFLICT:
            words = "another final delivery of this job came before it"
            await consumer.keep_elsewhere(message, words)
        elif delivery.delivery_id not in self._awaited:
            words = (
                f"nobody here waits for task_id {delivery.delivery_id!r} yet, which no "
                f"RunqyOperator chose; it is in the inbox, too, for {self._ttl} s"
            )
            await consumer.keep_elsewhere(message, words)
        else:
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


async def _take_down(
    opening: asyncio.Future[tuple[Consumer, InboxWriter, AsyncExitStack]],
) -> None:
    await asyncio.wait([opening])
    if not opening.cancelled() and opening.exception() is None:
        _, _, closing = opening.result()
        await closing.aclose()


#: Ids that RunqyOperator chooses: UUIDs of version 5. Most others are of version 4.
_OURS = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-5[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
)

#: Seconds for which an id is known since it was last asked for; much longer than the
#: time between two looks.
KNOWN_FOR = 3600.0


class Awaited:
    """Ids of deliveries that somebody waits for, or may wait for."""

    def __init__(self) -> None:
        self._asked: dict[str, float] = {}

    def add(self, ids: Collection[str]) -> None:
        """Note ids that are waited for now; those not noted for long are forgotten."""
        now = time.monotonic()
        known = {id_: at for id_, at in self._asked.items() if now - at < KNOWN_FOR}
        known.update((id_, now) for id_ in ids if not _OURS.fullmatch(id_))
        self._asked = known

    def __contains__(self, id_: str) -> bool:
        return bool(_OURS.fullmatch(id_)) or id_ in self._asked
