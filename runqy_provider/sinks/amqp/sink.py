# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The sink ``amqp://conn_id/queue``: a message, moved to the inbox when it arrives."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import quote, unquote, urlsplit

from runqy_delivery import DeliveryRequest
from runqy_provider.errors import Misconfigured
from runqy_provider.inbox import keys
from runqy_provider.sinks.amqp.broker import amqp_errors, connect
from runqy_provider.sinks.amqp.consumer import DEFAULT_QUEUE, AmqpQueue
from runqy_provider.sinks.amqp.source import AmqpSource
from runqy_provider.sinks.base import BoundSink, Sink
from runqy_provider.sinks.inbox import InboxBackend
from runqy_provider.sinks.options import options_of, query_of
from runqy_provider.waiters.waiter import Waiter, WaitTarget

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Self

    from runqy_provider.config import Config
    from runqy_provider.models import JobRef
    from runqy_provider.redis_connection import RedisConnection
    from runqy_provider.settings import Settings
    from runqy_provider.sinks.result import StoredResult, UrlOpener

SCHEME = "amqp"

#: The options of its URIs, and their defaults.
_DEFAULTS = {
    name: getattr(AmqpQueue, name) for name in ("exchange", "routing_key", "declare")
}


@dataclass(frozen=True, slots=True)
class _WaiterFactory:
    queue: AmqpQueue
    redis: RedisConnection
    config: Config = field(compare=False)

    def __call__(self) -> Waiter:
        source = AmqpSource(
            self.queue,
            self.redis,
            ttl=self.config.unread_ttl_seconds,
            max_body_bytes=self.config.max_body_bytes,
        )
        return Waiter(source, self.config.inbox_sweep_seconds)


@dataclass(frozen=True)
class AmqpSink(Sink):
    """Results in a queue of a message broker, such as RabbitMQ.

    Args:
        queue: The queue, and the exchange that leads to it.
    """

    queue: AmqpQueue
    is_relayed: ClassVar[bool] = True
    is_inbox: ClassVar[bool] = True
    needs_failure_channel: ClassVar[bool] = True
    notification_field: ClassVar[str | None] = "amqp"

    @classmethod
    def from_uri(cls, uri: str) -> Self:
        """Return the sink that ``amqp://conn_id/queue?option=value`` describes.

        Raises:
            Misconfigured: An option is unknown, or a name is not valid.
        """
        parts = urlsplit(uri)
        options = options_of(uri, _DEFAULTS)
        if not parts.netloc:
            raise Misconfigured(
                f"{uri!r} names no connection: write a sink in a message queue as "
                "amqp://conn_id/queue."
            )
        name = unquote(parts.path.removeprefix("/")) or DEFAULT_QUEUE
        return cls(AmqpQueue(parts.netloc, name, **options))

    @property
    def uri(self) -> str:
        query = query_of({n: getattr(self.queue, n) for n in _DEFAULTS}, _DEFAULTS)
        name = quote(self.queue.name, safe="")
        return f"{SCHEME}://{self.queue.conn_id}/{name}{query}"

    def bind(self, settings: Settings) -> BoundAmqpSink:
        return BoundAmqpSink(self, settings)


class BoundAmqpSink(BoundSink):
    """One queue, and the inbox that its messages are moved to."""

    sink: AmqpSink

    def __init__(self, sink: AmqpSink, settings: Settings) -> None:
        super().__init__(sink, settings)
        self._inbox = InboxBackend(settings, sink.queue.namespace)

    def check(self) -> None:
        """Check that the inbox works, and declare the queue."""
        self._inbox.check()
        asyncio.run(self._declare())

    def request(self, delivery_id: str, expires: float) -> DeliveryRequest:  # noqa: ARG002 - a message does not expire
        """Request a message."""
        queue = self.sink.queue
        return DeliveryRequest(
            delivery_id,
            sink=SCHEME,
            amqp={
                "queue": queue.name,
                "exchange": queue.exchange,
                "routing_key": queue.key,
            },
            max_bytes=self.settings.config.max_body_bytes,
        )

    def result_uri(self, delivery_id: str) -> str:
        """Return the URI of the delivery in the inbox."""
        return self._inbox.uri(delivery_id)

    def owns(self, uri: str) -> bool:
        """Return whether a delivery came to the inbox from this queue."""
        return uri.startswith(self._inbox.uri(""))

    def targets(self, job: JobRef) -> Sequence[WaitTarget]:
        """Return the inbox, and the queue whose messages are moved there."""
        factory = _WaiterFactory(
            self.sink.queue, self._inbox.redis, self.settings.config
        )
        relay = WaitTarget(factory, job.delivery_id, is_relayed=True)
        return [self._inbox.target(job.delivery_id), relay]

    def open(self, uri: str, open_url: UrlOpener | None = None) -> StoredResult:
        return self._inbox.open(uri, open_url or self.open_url)

    def describe_timeout(self, job: JobRef) -> str:
        """Say to which queue no message came."""
        queue, redis = self.sink.queue, self._inbox.redis
        in_keys = redis.in_keys(queue.namespace)
        return (
            f"No message with task_id {job.delivery_id!r} came to queue "
            f"{queue.name!r} (connection {queue.conn_id!r}); messages are moved to the "
            f"inbox (Redis at {redis.address}, key "
            f"{keys.delivery(in_keys, job.delivery_id)}). Check that the task "
            f"code publishes there, its log, and the queue {queue.rejected!r} for "
            "messages that are not valid deliveries."
        )

    async def _declare(self) -> None:
        queue = self.sink.queue
        with amqp_errors(queue.conn_id, f"use queue {queue.name!r}"):
            async with await connect(queue.conn_id) as connection:
                await queue.open(await connection.channel())
