"""Messages that no wait can be for, and the queue for rejected messages."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pika
import pytest

from runqy_provider.python_compat import timeout
from runqy_provider.settings import load_settings
from runqy_provider.sinks.amqp.consumer import PREFETCH
from runqy_provider.sinks.registry import sink_from_uri
from runqy_provider.waiters.wait import LivenessMonitor
from runqy_provider.waiters.waiter import close_waiters
from tests.integration.amqp.messages import (
    publish,
    reason_of,
    start_wait,
    wait_for_consumers,
    wait_until,
)

if TYPE_CHECKING:
    from pika.adapters.blocking_connection import BlockingChannel

    from devtools.servers.rabbitmq import RabbitMQ
    from runqy_provider.settings import Settings

pytestmark = pytest.mark.usefixtures("connect", "no_settling")


@pytest.fixture
def settings(queue: str) -> Settings:
    found = load_settings("runqy_default")
    sink_from_uri(f"amqp://mq/{queue}").bind(found).check()
    return found


async def deliver_last(settings: Settings, queue: str, channel: BlockingChannel) -> Any:
    """Publish a delivery after all other messages, and wait for it."""
    wait = start_wait(settings, f"amqp://mq/{queue}", f"d-{queue}")
    publish(channel, queue, {"task_id": f"d-{queue}", "result": 1})
    return await wait


@pytest.mark.parametrize(
    "arguments", [{"x-message-ttl": 600_000}, {"x-queue-type": "quorum"}]
)
def test_rejected_queue_that_exists_is_used_unchanged(
    arguments: dict[str, Any],
    settings: Settings,
    channel: BlockingChannel,
    queue: str,
) -> None:
    channel.queue_declare(f"{queue}.rejected", durable=True, arguments=arguments)
    publish(channel, queue, b"not json")

    async def scenario() -> Any:
        arrival = await deliver_last(settings, queue, channel)
        await close_waiters()
        return arrival

    assert asyncio.run(scenario()) is not None
    assert reason_of(channel, queue)[1] == b"not json"


def test_rejected_queue_deleted_is_created_again(
    settings: Settings, channel: BlockingChannel, queue: str, rabbitmq: RabbitMQ
) -> None:
    rejected = f"{queue}.rejected"

    async def scenario() -> None:
        wait = start_wait(settings, f"amqp://mq/{queue}", "unknown")
        await wait_for_consumers(rabbitmq, queue)
        publish(channel, queue, b"one")
        channel.queue_declare(rejected, durable=True)
        await asyncio.to_thread(wait_until, rabbitmq, rejected, "message_count", 1)
        channel.queue_delete(rejected)
        publish(channel, queue, b"two")
        assert await deliver_last(settings, queue, channel) is not None
        wait.cancel()
        await close_waiters()

    asyncio.run(scenario())
    assert reason_of(channel, queue)[1] == b"two"


@pytest.mark.parametrize("state", ["exclusive", "full"])
def test_rejected_queue_unusable_messages_stay_and_others_pass(
    state: str,
    settings: Settings,
    channel: BlockingChannel,
    queue: str,
    rabbitmq: RabbitMQ,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """There are more messages than the broker delivers without acknowledgement."""
    if state == "full":
        full = {"x-max-length": 1, "x-overflow": "reject-publish"}
        channel.queue_declare(f"{queue}.rejected", durable=True, arguments=full)
        publish(channel, f"{queue}.rejected", b"the only one")
    else:
        channel.queue_declare(f"{queue}.rejected", exclusive=True)
    for n in range(3 * PREFETCH):
        publish(channel, queue, b"not json %d" % n)

    async def scenario() -> Any:
        arrival = await deliver_last(settings, queue, channel)
        await close_waiters()
        return arrival

    assert asyncio.run(scenario()) is not None
    wait_until(rabbitmq, queue, "message_count", 3 * PREFETCH)
    assert f"Queue '{queue}.rejected' (connection 'mq') cannot be used" in caplog.text
    assert f"stays in queue '{queue}'" in caplog.text


def deep(depth: int) -> bytes:
    lists = b"[" * depth + b"]" * depth
    return b'{"task_id": "x", "status": "failed", "error": [' + lists + b"]}"


def test_rejected_message_with_deep_error_does_not_stop_others(
    settings: Settings, channel: BlockingChannel, queue: str
) -> None:
    """At some depths JSON can be parsed, but not serialized again."""
    for depth in range(900, 1000, 2):
        publish(channel, queue, deep(depth))

    async def scenario() -> Any:
        arrival = await deliver_last(settings, queue, channel)
        await close_waiters()
        return arrival

    assert asyncio.run(scenario()) is not None


class Latin(str):
    """A string that is encoded as Latin-1, not as UTF-8."""

    __slots__ = ()

    def encode(self, _encoding: str = "", _errors: str = "") -> bytes:
        return super().encode("latin-1")


def test_rejected_message_invalid_headers_are_left_out(
    settings: Settings, channel: BlockingChannel, queue: str
) -> None:
    properties = pika.BasicProperties(
        headers={"x-latin": Latin("Bücher"), "x-number": 1}
    )
    channel.basic_publish("", queue, b"not json", properties, mandatory=True)

    async def scenario() -> Any:
        arrival = await deliver_last(settings, queue, channel)
        await close_waiters()
        return arrival

    assert asyncio.run(scenario()) is not None
    assert reason_of(channel, queue)[1] == b"not json"


@pytest.mark.parametrize("begins_with_id", [True, False])
def test_rejected_message_reason_reaches_the_waiting_task(
    begins_with_id: bool, settings: Settings, channel: BlockingChannel, queue: str
) -> None:
    name = f"d-{queue}"
    fields = {"task_id": name, "status": "done"}
    if not begins_with_id:
        fields = dict(reversed(fields.items()))
    warned = asyncio.Event()
    liveness = LivenessMonitor(on_change=lambda _update: warned.set())

    async def scenario() -> Any:
        wait = start_wait(settings, f"amqp://mq/{queue}", name, liveness=liveness)
        publish(channel, queue, fields)
        async with timeout(30):
            await warned.wait()
        publish(channel, queue, {"task_id": name, "result": 1})
        arrival = await wait
        await close_waiters()
        return arrival

    assert asyncio.run(scenario()) is not None, "a later delivery is taken"
    assert "status is 'done'" in liveness.refusal
    assert f"{queue}.rejected" in liveness.refusal
