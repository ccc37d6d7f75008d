"""One queue that several runqy connections use, or other applications."""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from runqy_provider.context import load_context
from runqy_provider.hooks.result import RunqyResultHook
from runqy_provider.jobs.submission import delivery_id_of
from runqy_provider.sinks.registry import sink_from_uri
from runqy_provider.waiters.registry import close_waiters
from tests.integration.amqp.messages import (
    consumed,
    publish,
    reason_of,
    start_wait,
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
def _other(connect: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A second runqy connection, with the same Redis."""
    other = json.dumps(connect()["runqy_default"])
    monkeypatch.setenv("AIRFLOW_CONN_RUNQY_OTHER", other)


@pytest.mark.usefixtures("_other")
def test_shared_queue_two_connections_find_their_messages(
    rabbitmq: RabbitMQ, channel: BlockingChannel, queue: str
) -> None:
    """One of them waits: it moves the other's message to where that one looks."""
    sink = f"amqp://mq/{queue}?declare=true"
    mine, other = load_context("runqy_default"), load_context("runqy_other")
    sink_from_uri(sink).bind(mine).check()
    ids = [str(uuid.uuid5(uuid.NAMESPACE_URL, f"{queue}/{n}")) for n in range(20)]

    async def scenario() -> list[Any]:
        begun = [
            start_wait(access, sink, delivery_id, 10)
            for n, delivery_id in enumerate(ids)
            for access in [(mine, other)[n % 2]]
        ]
        # Another triggerer's, which takes every other message.
        stranger = start_wait(other, f"{sink}&routing_key=elsewhere", "nobody", 60)
        await consumed(rabbitmq, queue, 2)
        for n, delivery_id in enumerate(ids):
            publish(channel, queue, {"task_id": delivery_id, "result": n})
        arrivals = await asyncio.gather(*begun)
        stranger.cancel()
        await close_waiters()
        return arrivals

    arrivals = asyncio.run(scenario())
    assert [arrival and arrival.status for arrival in arrivals] == ["completed"] * 20


@pytest.mark.usefixtures("_other")
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
    """Whoever chose that id may begin to wait later: nothing may be lost to either."""
    sink = f"amqp://mq/{queue}"
    access = load_context("runqy_default")
    sink_from_uri(sink).bind(access).check()
    strange = {"task_id": str(uuid.uuid4()), "result": "somebody's"}
    publish(channel, queue, strange)

    assert outcome_of(harness.run_of({"value": 1}, sink=sink)) == 1  # consumes it
    wait_until(rabbitmq, f"{queue}.rejected", "message_count", 1)
    reason, body = reason_of(channel, queue)
    assert "no task waits for task_id" in reason
    assert json.loads(body) == strange

    async def scenario() -> Any:
        arrival = await start_wait(access, sink, strange["task_id"])
        await close_waiters()
        return arrival

    arrival = asyncio.run(scenario())
    assert (
        sink_from_uri(sink).bind(access).open(arrival.result_uri).value()
        == "somebody's"
    )


def test_shared_queue_known_message_is_not_copied_to_rejected(
    channel: BlockingChannel, queue: str, rabbitmq: RabbitMQ
) -> None:
    """A job's id whoever waits for it, and any other id that is waited for here."""
    sink = f"amqp://mq/{queue}"
    access = load_context("runqy_default")
    sink_from_uri(sink).bind(access).check()
    channel.queue_declare(f"{queue}.rejected", durable=True)
    of_a_task = delivery_id_of("d", "r", queue, -1, 1, "ti")

    async def scenario() -> None:
        wait = start_wait(access, sink, "of-my-own")
        await consumed(rabbitmq, queue)
        publish(channel, queue, {"task_id": of_a_task, "result": 1})
        publish(channel, queue, {"task_id": "of-my-own", "result": 2})
        assert (await wait) is not None
        await asyncio.to_thread(wait_until, rabbitmq, queue, "message_count", 0)
        await close_waiters()

    asyncio.run(scenario())

    rejected = channel.queue_declare(f"{queue}.rejected", passive=True).method
    assert rejected.message_count == 0
