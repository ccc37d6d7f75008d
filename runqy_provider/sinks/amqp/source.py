# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""A message queue as a source for a waiter: one consumer that fills the inbox.

The triggerer that receives a message moves it to the inbox, where the triggerer with
the wait finds it. A message is acknowledged only after that: if anything fails before,
the broker sends it again, and the inbox recognises a repetition.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import re
import time
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING, Any

from runqy_delivery import BadDelivery, Delivery
from runqy_provider.caching import ExpiringDict
from runqy_provider.errors import (
    Misconfigured,
    NoAccess,
    SinkError,
    SinkUnavailable,
)
from runqy_provider.inbox.callback_url import DELIVERY_ID
from runqy_provider.inbox.writer import InboxWriter, Outcome, digest
from runqy_provider.python_compat import is_cancelled
from runqy_provider.redis_client import async_client
from runqy_provider.sinks.amqp.broker import amqp_errors, connect
from runqy_provider.sinks.amqp.consumer import Consumer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Coroutine, Mapping

    from aio_pika.abc import AbstractIncomingMessage

    from runqy_provider.redis_connection import RedisConnection
    from runqy_provider.sinks.amqp.consumer import AmqpQueue
    from runqy_provider.waiters.source import PollResult

log = logging.getLogger(__name__)

#: Seconds between two attempts to store a message in an inbox that is unavailable.
INBOX_DELAY = 2.0

#: Seconds for which a poll waits until earlier messages are moved. Less than a poll may
#: take.
CATCH_UP_TIMEOUT = 10.0

#: Seconds between two checks whether earlier messages are moved.
CATCH_UP_INTERVAL = 0.05

#: The start of a message that begins with its id, as most do.
_TASK_ID = re.compile(rb'\s*\{\s*"task_id"\s*:\s*"([A-Za-z0-9._-]{1,128})"')

#: The largest message that is parsed only to find its id, in bytes.
LARGEST_PARSED = 64 * 1024

#: Ids that RunqyOperator chooses: UUIDs of version 5. Most others are of version 4.
_OPERATOR_ID = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-5[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
)

#: Seconds for which an id is known after its last poll; much longer than the interval
#: between two polls.
KNOWN_TTL = 3600.0


class AmqpSource:
    """Moves messages to the inbox; each wait has a delivery id.

    It reports no arrivals: each wait also polls the inbox.

    Args:
        queue: The queue.
        redis: The Redis of the inbox.
        ttl: Seconds that an unread delivery stays in the inbox.
        max_body_bytes: Size of the largest delivery that is accepted, in bytes.
    """

    def __init__(
        self, queue: AmqpQueue, redis: RedisConnection, *, ttl: int, max_body_bytes: int
    ) -> None:
        self._queue = queue
        self._redis = redis
        self._ttl = ttl
        self._max_body_bytes = max_body_bytes
        self._known_ids = KnownDeliveryIds()
        self._error: SinkError | None = None
        self._consumer: Consumer | None = None
        self._is_moving = False
        self._is_caught_up = False

    async def poll(self, keys: Collection[str]) -> Mapping[str, PollResult]:
        """Wait until earlier messages are in the inbox, and report no arrivals.

        Raises:
            SinkUnavailable: The queue is not consumed, or still has messages: the
                delivery that is polled for may be among them.
        """
        self._known_ids.add(keys)
        await self._catch_up()
        if isinstance(self._error, SinkUnavailable):
            raise self._error
        if self._error is not None:
            return dict.fromkeys(keys, self._error)
        return {}

    async def hints(self) -> AsyncIterator[str | None]:
        """Consume; yield only when that fails, so that waits are polled at once."""
        try:
            await self._consume()
        except SinkError as error:
            self._error = error
        except Misconfigured as error:
            # The connection was correct when the job was enqueued, and may be again
            # before it ends. Airflow also raises this if its API is unavailable.
            self._error = SinkUnavailable(str(error))
        cause = self._error
        if cause is not None:
            yield None
            raise SinkUnavailable(str(cause)) from cause

    async def _catch_up(self) -> None:
        """Wait until the queue has been empty once since the consumer started.

        Raises:
            SinkUnavailable: It was never empty within ``CATCH_UP_TIMEOUT``.
        """
        name, conn_id = self._queue.name, self._queue.conn_id
        end = time.monotonic() + CATCH_UP_TIMEOUT
        was_drained = False
        while not self._is_caught_up and self._error is None:
            consumer = self._consumer
            if consumer is not None and not self._is_moving:
                with amqp_errors(conn_id, f"count the messages in queue {name!r}"):
                    is_drained = await consumer.is_drained()
                is_drained &= not self._is_moving and consumer is self._consumer
                # Checked twice: a received message is passed on one turn of the event
                # loop later.
                self._is_caught_up = is_drained and was_drained
                if self._is_caught_up:
                    return
                was_drained = is_drained
            if time.monotonic() >= end:
                raise SinkUnavailable(
                    f"Queue {name!r} (connection {conn_id!r}) is not consumed yet, or "
                    "has messages that are still being moved to the inbox."
                )
            await asyncio.sleep(CATCH_UP_INTERVAL)

    async def aclose(self) -> None:
        """Forget the last error; the connections are closed when ``hints`` ends."""
        self._error = None

    async def _consume(self) -> None:
        """Move messages to the inbox, one after another, until an error occurs.

        Raises:
            SinkError: The queue cannot be consumed, or the consumer has ended.
            Misconfigured: The connection does not exist at the moment, or lacks a
                field.
        """
        conn_id = self._queue.conn_id
        with amqp_errors(conn_id, f"consume queue {self._queue.name!r}"):
            # Opened in a task, and closed only when that has ended: aiormq may swallow
            # a cancellation while it connects.
            opening = asyncio.ensure_future(self._open())
            try:
                await asyncio.wait([opening])
                if opening.cancelled():
                    # aiormq does this if the broker does not answer heartbeats.
                    raise SinkUnavailable(
                        f"The broker of connection {conn_id!r} stopped responding "
                        f"while queue {self._queue.name!r} was being opened."
                    )
                consumer, writer, _ = opening.result()
                self._error, self._consumer = None, consumer
                await self._move(consumer, writer)
            finally:
                self._consumer, self._is_caught_up = None, False
                await _run_to_end(_close(opening))

    async def _open(self) -> tuple[Consumer, InboxWriter, AsyncExitStack]:
        async with AsyncExitStack() as stack:
            namespace, conn_id = self._queue.namespace, self._queue.conn_id
            redis = async_client(
                self._redis.for_namespace(namespace), most_connections=1
            )
            stack.push_async_callback(redis.aclose)
            connection = await stack.enter_async_context(await connect(conn_id))
            consumer = Consumer(self._queue, connection)
            await consumer.start()
            writer = InboxWriter(redis, self._redis, namespace, self._ttl)
            return consumer, writer, stack.pop_all()

    async def _move(self, consumer: Consumer, writer: InboxWriter) -> None:
        """Move messages until the consumer ends or this task is cancelled."""
        while not is_cancelled():
            message = await consumer.next()
            self._is_moving = True
            try:
                await self._move_one(consumer, writer, message)
            finally:
                self._is_moving = False

    async def _move_one(
        self, consumer: Consumer, writer: InboxWriter, message: AbstractIncomingMessage
    ) -> None:
        """Move a message to the inbox or the dead-letter queue, then acknowledge it."""
        try:
            delivery = self._parse(message.body)
            mark = digest(delivery)
        except BadDelivery as error:
            await consumer.dead_letter(message, str(error))
            await self._tell(writer, message.body, str(error))
            return
        while True:
            try:
                outcome = await writer.put(delivery, message.body, mark)
            except (SinkUnavailable, NoAccess) as error:
                # Meanwhile the broker keeps the message: it is not acknowledged.
                log.warning("A message was not moved, will retry: %s", error)
                await asyncio.sleep(INBOX_DELAY * random.uniform(0.5, 1))  # noqa: S311 - not for secrets
            else:
                break
        if outcome is Outcome.CONFLICT:
            reason = "another final delivery of this job arrived before it"
            await consumer.dead_letter(message, reason)
        elif delivery.delivery_id not in self._known_ids:
            reason = (
                f"no task waits for task_id {delivery.delivery_id!r} here, and it is "
                "not an id that RunqyOperator chooses; a copy stays in the inbox for "
                f"{self._ttl} s"
            )
            await consumer.dead_letter(message, reason)
        else:
            await message.ack()

    async def _tell(self, writer: InboxWriter, body: bytes, reason: str) -> None:
        """Tell the waiting task why its message was refused, if that has an id."""
        delivery_id = _task_id_in(body)
        if delivery_id not in self._known_ids:
            return
        text = (
            f"A message of {delivery_id} in queue {self._queue.name!r} was refused, "
            f"and moved to {self._queue.rejected!r}: {reason}"
        )
        try:
            await writer.note_refusal(delivery_id, text)
        except (SinkUnavailable, NoAccess) as error:
            log.warning("The waiting task was not told: %s", error)

    def _parse(self, body: bytes) -> Delivery:
        """Return the delivery in a message.

        Raises:
            BadDelivery: The message is too large, or is not a delivery.
        """
        if len(body) > self._max_body_bytes:
            raise BadDelivery(
                f"it has {len(body):,} bytes; [runqy] max_body_bytes is "
                f"{self._max_body_bytes:,}"
            )
        delivery = Delivery.from_json(body)
        if not DELIVERY_ID.fullmatch(delivery.delivery_id):
            raise BadDelivery(
                f"its task_id {delivery.delivery_id[:80]!r} is not a valid delivery id"
            )
        return delivery


def _task_id_in(body: bytes) -> str:
    """Return the id in a message that is not a delivery; empty if it has none."""
    found = _TASK_ID.match(body)
    if found is not None:
        return found[1].decode()
    try:
        fields = json.loads(body) if len(body) <= LARGEST_PARSED else None
    except (ValueError, RecursionError):
        return ""
    task_id = fields.get("task_id") if isinstance(fields, dict) else None
    is_id = isinstance(task_id, str) and DELIVERY_ID.fullmatch(task_id)
    return str(task_id) if is_id else ""


async def _run_to_end(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine to its end, even if this task is cancelled meanwhile.

    Otherwise it would go on by itself and might be cancelled when the event loop ends:
    aiormq then leaves sockets open that it was closing.
    """
    task = asyncio.ensure_future(coroutine)
    while not task.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait([task])
    task.result()


async def _close(
    opening: asyncio.Future[tuple[Consumer, InboxWriter, AsyncExitStack]],
) -> None:
    """Close what a task has opened, once the task has ended."""
    await asyncio.wait([opening])
    if not opening.cancelled() and opening.exception() is None:
        _, _, stack = opening.result()
        await stack.aclose()


class KnownDeliveryIds:
    """Ids of deliveries that tasks wait for, here or in another triggerer.

    All ids that RunqyOperator may choose are known, and those that were polled here.
    """

    def __init__(self) -> None:
        self._polled: ExpiringDict[str] = ExpiringDict()

    def add(self, ids: Collection[str]) -> None:
        """Add ids that are polled now, and forget those not polled for a long time."""
        self._polled.drop_expired(0)
        for id_ in ids:
            if not _OPERATOR_ID.fullmatch(id_):
                self._polled.set(id_, id_, KNOWN_TTL)

    def __contains__(self, id_: str) -> bool:
        return bool(_OPERATOR_ID.fullmatch(id_)) or id_ in self._polled
