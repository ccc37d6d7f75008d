"""Publish to a queue, wait for its messages, and inspect what is left in it."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

from runqy_provider.models import JobRef
from runqy_provider.sinks.registry import sink_from_uri
from runqy_provider.waiters.race import wait_any

if TYPE_CHECKING:
    from pika.adapters.blocking_connection import BlockingChannel

    from devtools.servers.rabbitmq import RabbitMQ
    from runqy_provider.settings import Settings
    from runqy_provider.waiters.source import Arrival
    from runqy_provider.waiters.wait import LivenessMonitor


def publish(channel: BlockingChannel, queue: str, body: Any) -> None:
    encoded = body if isinstance(body, bytes) else json.dumps(body).encode()
    channel.basic_publish("", queue, encoded, mandatory=True)


def start_wait(
    settings: Settings,
    sink: str,
    delivery_id: str,
    seconds: float = 30,
    liveness: LivenessMonitor | None = None,
) -> asyncio.Task[Arrival | None]:
    """Begin to wait for a delivery."""
    targets = sink_from_uri(sink).bind(settings).targets(JobRef(delivery_id))
    return asyncio.ensure_future(
        wait_any(targets, deadline=time.time() + seconds, liveness=liveness)
    )


async def wait_for_consumers(rabbitmq: RabbitMQ, queue: str, count: int = 1) -> None:
    """Wait until a queue has so many consumers."""
    await asyncio.to_thread(wait_until, rabbitmq, queue, "consumer_count", count)


def wait_until(rabbitmq: RabbitMQ, queue: str, counter: str, count: int) -> None:
    """Wait until the broker counts so many of a queue's consumers, or messages."""
    connection = rabbitmq.connect()
    channel = connection.channel()
    end = time.monotonic() + 20
    found = None
    while found != count:
        assert time.monotonic() < end, f"{counter} is {found}, not {count}"
        connection.sleep(0.05)
        found = getattr(channel.queue_declare(queue, passive=True).method, counter)
    connection.close()


def reason_of(channel: BlockingChannel, queue: str) -> tuple[str, bytes]:
    """Take one rejected message; return the reason and its body."""
    method, properties, body = channel.basic_get(f"{queue}.rejected", auto_ack=True)
    assert method is not None, "no message was rejected"
    return properties.headers["x-runqy-reason"], body
