"""A consumer that ended is started again, whatever ended it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from redis import Redis

from runqy_provider.errors import NotThere, SinkUnavailable
from runqy_provider.models import JobRef
from runqy_provider.python_compat import cancel, timeout
from runqy_provider.settings import load_settings
from runqy_provider.sinks.amqp.broker import amqp_errors, connect
from runqy_provider.sinks.amqp.consumer import AmqpQueue, Consumer
from runqy_provider.sinks.registry import sink_from_uri
from runqy_provider.waiters.race import poll_status
from runqy_provider.waiters.waiter import close_waiters
from tests.integration.amqp.messages import (
    publish,
    start_wait,
    wait_for_consumers,
    wait_until,
)

if TYPE_CHECKING:
    from pika.adapters.blocking_connection import BlockingChannel

    from devtools.servers.rabbitmq import RabbitMQ
    from tests.support.stack import Stack

pytestmark = pytest.mark.usefixtures("connect", "no_settling")


async def error_of_polls(sink: str) -> str:
    """Wait until the polls of a sink's source fail; return the error."""
    settings = load_settings("runqy_default")
    targets = sink_from_uri(sink).bind(settings).targets(JobRef("unknown"))
    async with timeout(20):
        while not (error := poll_status(targets).last_error):
            await asyncio.sleep(0.01)
    return str(error)


def test_amqp_source_deleted_queue_is_declared_again(
    rabbitmq: RabbitMQ, channel: BlockingChannel, queue: str
) -> None:
    context, sink = load_settings("runqy_default"), f"amqp://mq/{queue}"
    sink_from_uri(sink).bind(context).check()

    async def scenario() -> Any:
        wait = start_wait(context, sink, f"d-{queue}")
        await wait_for_consumers(rabbitmq, queue)
        channel.queue_delete(queue)
        error = await error_of_polls(sink)
        channel.queue_declare(
            queue, durable=True
        )  # unless the consumer has declared it
        publish(channel, queue, {"task_id": f"d-{queue}", "result": 1})
        arrival = await wait
        await close_waiters()
        return error, arrival

    error, arrival = asyncio.run(scenario())

    assert arrival is not None
    assert f"Queue '{queue}' (connection 'mq') is not consumed any more" in error
    assert "was the queue deleted?" in error


def test_amqp_consumer_connection_closed_at_any_moment_is_unavailable(
    queue: str,
) -> None:
    """A connection closes in each step of opening a channel and counting messages."""

    async def error_after(turns: int) -> str:
        connection = await connect("mq")
        consumer = Consumer(AmqpQueue("mq", queue), connection)
        await consumer.start()
        counting = asyncio.ensure_future(count(consumer))
        for _ in range(turns):
            await asyncio.sleep(0)  # one turn of the event loop
        await connection.close()
        with pytest.raises(SinkUnavailable, match="Could not count") as caught:
            await counting
        return str(caught.value)

    async def count(consumer: Consumer) -> bool:
        with amqp_errors("mq", "count"):
            return await consumer.is_drained()

    async def scenario() -> list[str]:
        return [await error_after(turns) for turns in range(1, 12)]

    errors = asyncio.run(scenario())
    assert any("closed meanwhile" in error for error in errors)
    assert not any(error.rstrip().endswith(":") for error in errors)


def test_amqp_errors_cancellation_of_the_task_stays() -> None:
    async def scenario() -> None:
        with amqp_errors("mq", "wait"):
            await asyncio.Event().wait()

    async def cancelled() -> bool:
        task = asyncio.ensure_future(scenario())
        await asyncio.sleep(0)
        cancel(task)
        await asyncio.wait([task])
        return task.cancelled()

    assert asyncio.run(cancelled())


def test_amqp_errors_error_of_our_own_stays() -> None:
    with pytest.raises(KeyError), amqp_errors("mq", "wait"):
        raise KeyError


def test_amqp_source_queue_deleted_without_declare_ends_wait(
    rabbitmq: RabbitMQ, channel: BlockingChannel, queue: str
) -> None:
    context, sink = load_settings("runqy_default"), f"amqp://mq/{queue}?declare=false"
    channel.queue_declare(queue, durable=True)

    async def scenario() -> None:
        wait = start_wait(context, sink, f"d-{queue}")
        await wait_for_consumers(rabbitmq, queue)
        channel.queue_delete(queue)
        with pytest.raises(NotThere, match=queue):
            await wait
        # Once it is created again, new waits use it.
        channel.queue_declare(queue, durable=True)
        await close_waiters()
        wait = start_wait(context, sink, f"d-{queue}")
        await wait_for_consumers(rabbitmq, queue)
        publish(channel, queue, {"task_id": f"d-{queue}", "result": 1})
        assert (await wait) is not None
        await close_waiters()

    asyncio.run(scenario())


def test_amqp_source_broker_restart_while_inbox_unavailable_loses_nothing(
    rabbitmq: RabbitMQ, queue: str, stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message that cannot be acknowledged any more is delivered again."""
    monkeypatch.setattr("runqy_provider.sinks.amqp.source.INBOX_DELAY", 0.1)
    context, sink = load_settings("runqy_default"), f"amqp://mq/{queue}"
    sink_from_uri(sink).bind(context).check()
    redis = Redis(port=stack.sandbox.redis_port)

    def send(delivery_id: str) -> None:
        connection = rabbitmq.connect()
        channel = connection.channel()
        channel.confirm_delivery()
        publish(channel, queue, {"task_id": delivery_id, "result": 1})
        connection.close()

    async def scenario() -> Any:
        waits = [start_wait(context, sink, f"{queue}-{n}", 50) for n in range(2)]
        await wait_for_consumers(rabbitmq, queue)
        redis.config_set("maxmemory", "1")  # it refuses writes
        try:
            await asyncio.to_thread(send, f"{queue}-0")
            await asyncio.to_thread(wait_until, rabbitmq, queue, "message_count", 0)
            await asyncio.to_thread(rabbitmq.child.stop)
        finally:
            redis.config_set("maxmemory", "0")
        await asyncio.to_thread(rabbitmq.child.start)
        await asyncio.to_thread(send, f"{queue}-1")
        arrivals = await asyncio.gather(*waits)
        await close_waiters()
        return arrivals

    assert all(asyncio.run(scenario()))


def test_amqp_source_connection_not_found_is_fetched_again(
    rabbitmq: RabbitMQ,
    channel: BlockingChannel,
    queue: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Airflow raises the same error if its API is unavailable."""
    context, sink = load_settings("runqy_default"), f"amqp://late/{queue}"
    channel.queue_declare(queue, durable=True)

    async def scenario() -> Any:
        wait = start_wait(context, sink, f"d-{queue}")
        error = await error_of_polls(sink)
        monkeypatch.setenv("AIRFLOW_CONN_LATE", rabbitmq.url)
        await wait_for_consumers(rabbitmq, queue)
        publish(channel, queue, {"task_id": f"d-{queue}", "result": 1})
        arrival = await wait
        await close_waiters()
        return error, arrival

    error, arrival = asyncio.run(scenario())

    assert arrival is not None
    assert "no connection 'late'" in error
