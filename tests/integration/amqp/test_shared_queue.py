"""A queue that several runqy connections, or other applications, use."""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from runqy_provider.hooks.result import RunqyResultHook
from runqy_provider.jobs.launch import delivery_id_of
from runqy_provider.settings import load_settings
from runqy_provider.sinks.registry import sink_from_uri
from runqy_provider.waiters.waiter import close_waiters
from tests.integration.amqp.messages import (
    publish,
    reason_of,
    start_wait,
    wait_for_consumers,
    wait_until,
)
from tests.support import harness
from tests.support.harness import outcome_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from pika.adapters.blocking_connection import BlockingChannel

    from devtools.servers.rabbitmq import RabbitMQ

pytestmark = pytest.mark.usefixtures("connect", "no_settling")


@pytest.fixture
def other_connection(
    connect: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second runqy connection, with the same Redis."""
    other = json.dumps(connect()["runqy_default"])
    monkeypatch.setenv("AIRFLOW_CONN_RUNQY_OTHER", other)


@pytest.mark.usefixtures("other_connection")
def test_shared_queue_two_connections_find_their_messages(
    rabbitmq: RabbitMQ, channel: BlockingChannel, queue: str
) -> None:
    """A consumer of one connection moves the other's message to the other's inbox."""
    sink = f"amqp://mq/{queue}?declare=true"
    mine, other = load_settings("runqy_default"), load_settings("runqy_other")
    sink_from_uri(sink).bind(mine).check()
    ids = [str(uuid.uuid5(uuid.NAMESPACE_URL, f"{queue}/{n}")) for n in range(20)]

    async def scenario() -> list[Any]:
        waits = [
            start_wait((mine, other)[n % 2], sink, delivery_id, 10)
            for n, delivery_id in enumerate(ids)
        ]
        # A second consumer, as in another triggerer: it takes every other message.
        second = start_wait(other, f"{sink}&routing_key=elsewhere", "unknown", 60)
        await wait_for_consumers(rabbitmq, queue, 2)
        for n, delivery_id in enumerate(ids):
            publish(channel, queue, {"task_id": delivery_id, "result": n})
        arrivals = await asyncio.gather(*waits)
        second.cancel()
        await close_waiters()
        return arrivals

    arrivals = asyncio.run(scenario())
    assert [arrival and arrival.status for arrival in arrivals] == ["completed"] * 20


@pytest.mark.usefixtures("other_connection")
@pytest.mark.parametrize("conn_id", ["runqy_default", "runqy_other"])
def test_shared_queue_reference_is_read_by_other_connection(
    conn_id: str, queue: str
) -> None:
    image = outcome_of(
        harness.run_of(
            {"bytes": 100_000}, sink=f"amqp://mq/{queue}", runqy_conn_id=conn_id
        )
    )

    assert image["uri"].startswith(f"inbox://amqp/mq/{queue}/")
    for reader in ("runqy_default", "runqy_other"):
        assert len(RunqyResultHook(reader).read(image).bytes()) == 100_000


def test_shared_queue_name_with_special_characters_is_quoted(queue: str) -> None:
    sink = f"amqp://mq/a%2Fb%3A%23{queue}"

    image = outcome_of(harness.run_of({"bytes": 100_000}, sink=sink))

    assert len(RunqyResultHook().read(image).bytes()) == 100_000


def test_shared_queue_message_of_other_application_is_kept_and_found(
    channel: BlockingChannel, queue: str, rabbitmq: RabbitMQ
) -> None:
    """The message is in the inbox for a later wait, and in the rejected queue."""
    sink = f"amqp://mq/{queue}"
    settings = load_settings("runqy_default")
    sink_from_uri(sink).bind(settings).check()
    foreign = {"task_id": str(uuid.uuid4()), "result": "foreign"}
    publish(channel, queue, foreign)

    assert (
        outcome_of(harness.run_of({"value": 1}, sink=sink)) == 1
    )  # it consumes the queue
    wait_until(rabbitmq, f"{queue}.rejected", "message_count", 1)
    reason, body = reason_of(channel, queue)
    assert "no task waits for task_id" in reason
    assert json.loads(body) == foreign

    async def scenario() -> Any:
        arrival = await start_wait(settings, sink, foreign["task_id"])
        await close_waiters()
        return arrival

    arrival = asyncio.run(scenario())
    assert (
        sink_from_uri(sink).bind(settings).open(arrival.result_uri).json() == "foreign"
    )


def test_shared_queue_known_message_is_not_copied_to_rejected(
    channel: BlockingChannel, queue: str, rabbitmq: RabbitMQ
) -> None:
    """A job's id is known, and so is any id that a wait in this process has."""
    sink = f"amqp://mq/{queue}"
    settings = load_settings("runqy_default")
    sink_from_uri(sink).bind(settings).check()
    channel.queue_declare(f"{queue}.rejected", durable=True)
    of_a_job = delivery_id_of(["d", "r", queue, -1], 1, "ti")

    async def scenario() -> None:
        wait = start_wait(settings, sink, "waited-for")
        await wait_for_consumers(rabbitmq, queue)
        publish(channel, queue, {"task_id": of_a_job, "result": 1})
        publish(channel, queue, {"task_id": "waited-for", "result": 2})
        assert (await wait) is not None
        await asyncio.to_thread(wait_until, rabbitmq, queue, "message_count", 0)
        await close_waiters()

    asyncio.run(scenario())

    rejected = channel.queue_declare(f"{queue}.rejected", passive=True).method
    assert rejected.message_count == 0
