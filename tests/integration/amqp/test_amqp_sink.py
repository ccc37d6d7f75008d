"""Results in a queue of a real RabbitMQ."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from redis import Redis

from devtools.servers.switch import Switch
from runqy_provider.errors import (
    JobFailed,
    Misconfigured,
    NoAccess,
    NotThere,
    SinkUnavailable,
)
from runqy_provider.hooks.result import RunqyResultHook
from runqy_provider.inbox.writer import InboxWriter
from runqy_provider.models import JobRef, is_reference
from runqy_provider.python_compat import timeout
from runqy_provider.settings import load_settings
from runqy_provider.sinks.registry import sink_from_uri
from runqy_provider.waiters.race import wait_any
from runqy_provider.waiters.waiter import close_waiters
from runqy_sandbox.process.net import free_port
from tests.integration.amqp.messages import publish, start_wait, wait_for_consumers
from tests.support import harness
from tests.support.harness import Run, outcome_of, outcomes_of_example

if TYPE_CHECKING:
    from collections.abc import Callable

    from pika.adapters.blocking_connection import BlockingChannel

    from devtools.servers.rabbitmq import RabbitMQ
    from tests.support.stack import Stack

pytestmark = pytest.mark.usefixtures("connect", "no_settling")


def run_of(
    sink: str, payload: Any = None, runqy_queue: str = "helper", **arguments: Any
) -> Run:
    return harness.run_of(payload, runqy_queue, sink=sink, **arguments)


@pytest.mark.parametrize("value", [{"a": [1, None]}, None])
def test_amqp_sink_value_is_returned(value: Any, queue: str) -> None:
    assert outcome_of(run_of(f"amqp://mq/{queue}", {"value": value})) == value


def test_amqp_sink_example_dag_runs() -> None:
    assert outcomes_of_example("runqy_amqp") == {
        "by_guide": {"sum": 12},
        "resize": {"scene": 2, "width": 1280},
    }


def test_amqp_sink_task_code_of_the_guide_runs_unmodified() -> None:
    """The guide publishes to task_results, the default queue of the sink."""
    assert outcome_of(run_of("amqp://mq", {"numbers": [1, 2]}, "guide_amqp")) == {
        "sum": 3
    }


def test_amqp_sink_failure_is_raised_with_its_error(queue: str) -> None:
    with pytest.raises(JobFailed, match="ValueError: too dark") as caught:
        outcome_of(run_of(f"amqp://mq/{queue}", {"error": "too dark"}))
    assert "raise ValueError" in str(caught.value.traceback)


def test_amqp_sink_bytes_keep_their_type(queue: str) -> None:
    image = outcome_of(run_of(f"amqp://mq/{queue}", {"bytes": 3_000_000}))

    assert is_reference(image)
    assert (image["content_type"], image["size"]) == ("image/png", 3_000_000)
    assert len(RunqyResultHook().read(image).bytes()) == 3_000_000


def test_amqp_sink_result_too_large_fails_with_advice(queue: str) -> None:
    with pytest.raises(JobFailed, match="object store"):
        outcome_of(run_of(f"amqp://mq/{queue}", {"bytes": 7_000_000}))


def test_amqp_sink_large_result_with_raised_limit_is_returned(
    queue: str, monkeypatch: pytest.MonkeyPatch, connect: Callable[..., Any]
) -> None:
    monkeypatch.setenv("AIRFLOW__RUNQY__MAX_BODY_BYTES", "10000000")
    connect()

    image = outcome_of(run_of(f"amqp://mq/{queue}", {"bytes": 7_000_000}))

    assert image["size"] == 7_000_000


def test_amqp_sink_without_webhook_works(
    queue: str, connect: Callable[..., Any]
) -> None:
    connect(without=("callback_secret", "callback_url"))

    assert outcome_of(run_of(f"amqp://mq/{queue}", {"value": 1})) == 1


def test_amqp_sink_exchange_is_used(channel: BlockingChannel, queue: str) -> None:
    channel.exchange_declare(f"x-{queue}", "direct")
    sink = f"amqp://mq/{queue}?exchange=x-{queue}&routing_key=done"

    assert outcome_of(run_of(sink, {"value": 1})) == 1


def test_amqp_sink_invalid_message_goes_to_rejected_queue(
    channel: BlockingChannel, queue: str
) -> None:
    channel.queue_declare(queue, durable=True)
    invalid = [
        b"not json",
        b"[1]",
        b'{"status": "completed"}',
        b'{"task_id": "../etc", "result": 1}',
        b'{"task_id": "x", "result": "' + b"x" * 9_000_000 + b'"}',
    ]
    for body in invalid:
        publish(channel, queue, body)

    assert outcome_of(run_of(f"amqp://mq/{queue}", {"value": 1})) == 1
    rejected = []
    for method, properties, body in channel.consume(
        f"{queue}.rejected", auto_ack=True, inactivity_timeout=10
    ):
        assert method is not None, "a message was lost"
        assert properties.headers["x-runqy-reason"]
        assert properties.delivery_mode == 2
        rejected.append(body)
        if len(rejected) == len(invalid):
            break
    assert rejected == invalid


def test_amqp_sink_second_result_goes_to_rejected_queue(
    channel: BlockingChannel, queue: str
) -> None:
    run = run_of(f"amqp://mq/{queue}", {}, "idle").execute()
    delivery_id = run.xcoms["runqy_job"]["delivery_id"]
    for result in (1, 1, 2):  # the second 1 is a repeat, not a conflict
        publish(channel, queue, {"task_id": delivery_id, "result": result})

    assert run.resume(run.fire()).value == 1
    outcome_of(run_of(f"amqp://mq/{queue}", {"value": 1}))  # consumes the rest
    _, _, body = channel.basic_get(f"{queue}.rejected", auto_ack=True)
    assert json.loads(body or b"{}")["result"] == 2
    assert channel.basic_get(f"{queue}.rejected")[0] is None


def test_amqp_sink_message_taken_by_other_consumer_is_found(
    channel: BlockingChannel, queue: str
) -> None:
    """A consumer puts every message into the inbox, where other waits find theirs."""
    other = run_of(f"amqp://mq/{queue}", {}, "idle").execute()
    delivery_id = other.xcoms["runqy_job"]["delivery_id"]
    publish(channel, queue, {"task_id": delivery_id, "result": "for the other"})

    assert outcome_of(run_of(f"amqp://mq/{queue}", {"value": 1})) == 1
    assert channel.queue_declare(queue, passive=True).method.message_count == 0
    assert other.resume(other.fire()).value == "for the other"


BAD = [
    ("amqp://mq/{queue}?exchange=nothing_here", NotThere, "nothing_here"),
    ("amqp://mq/{queue}?declare=false", NotThere, "no queue"),
    ("amqp://mq/transient", Misconfigured, "other arguments"),
    ("amqp://mq/{queue}?color=red", Misconfigured, "color"),
    ("amqp://mq/{queue}?declare=perhaps", Misconfigured, "perhaps"),
    ("amqp://mq/amq.x", Misconfigured, "not a valid name"),
    ("amqp:///{queue}", Misconfigured, "names no connection"),
    ("amqp://wrong_password/{queue}", NoAccess, "wrong_password"),
    ("amqp://wrong_host/{queue}", NoAccess, "wrong_host"),
    ("amqp://unavailable/{queue}", SinkUnavailable, "unavailable"),
    ("amqp://nameless/{queue}", Misconfigured, "no host"),
    ("amqp://unheard_of/{queue}", Misconfigured, "no connection 'unheard_of'"),
]


@pytest.mark.parametrize(("sink", "error", "message"), BAD, ids=[row[0] for row in BAD])
def test_amqp_sink_invalid_input_enqueues_nothing(
    sink: str,
    error: type[Exception],
    message: str,
    queue: str,
    channel: BlockingChannel,
    rabbitmq: RabbitMQ,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    channel.queue_declare("transient", durable=False)
    at = f"127.0.0.1:{rabbitmq.port}"
    for name, url in {
        "WRONG_PASSWORD": f"amqp://guest:wrong-pw@{at}/%2F",
        "WRONG_HOST": f"amqp://guest:guest@{at}/no-such-host",
        "UNAVAILABLE": f"amqp://guest:guest@127.0.0.1:{free_port()}/%2F",
        "NAMELESS": '{"conn_type": "amqp"}',
    }.items():
        monkeypatch.setenv(f"AIRFLOW_CONN_{name}", url)
    run = run_of(sink.format(queue=queue), {"value": 1})

    with pytest.raises(error, match=message) as caught:
        outcome_of(run)
    assert "wrong-pw" not in str(caught.value)
    assert "runqy_job" not in run.xcoms


def test_amqp_sink_queue_deleted_during_wait_fails_the_wait(
    channel: BlockingChannel, queue: str
) -> None:
    sink = f"amqp://mq/{queue}?declare=false"
    channel.queue_declare(queue, durable=True)
    run = run_of(sink, {}, "idle").execute()
    channel.queue_delete(queue)

    run.resume(run.fire())
    assert isinstance(run.error, NotThere)
    assert queue in str(run.error)


def test_amqp_sink_timeout_names_queue(queue: str) -> None:
    run = run_of(
        f"amqp://mq/{queue}", {}, "idle", delivery_timeout=timedelta(seconds=0.3)
    ).execute()
    run.resume(run.fire())

    assert queue in str(run.error)
    assert "No message" in str(run.error)


def test_amqp_sink_inbox_unavailable_message_stays_in_queue(
    rabbitmq: RabbitMQ,
    channel: BlockingChannel,
    queue: str,
    monkeypatch: pytest.MonkeyPatch,
    stack: Stack,
) -> None:
    """A message is acknowledged only once it is in the inbox."""
    monkeypatch.setattr("runqy_provider.sinks.amqp.source.INBOX_DELAY", 0.1)
    attempts: list[Any] = []
    put = InboxWriter.put

    async def counted(self: Any, *arguments: Any, **options: Any) -> Any:
        attempts.append(arguments)
        return await put(self, *arguments, **options)

    monkeypatch.setattr(InboxWriter, "put", counted)
    run = run_of(f"amqp://mq/{queue}", {}, "idle").execute()
    delivery_id = run.xcoms["runqy_job"]["delivery_id"]

    async def scenario() -> Any:
        waiting = asyncio.ensure_future(anext(run.trigger.run()))
        await wait_for_consumers(rabbitmq, queue)
        redis = Redis(port=stack.sandbox.redis_port)
        redis.config_set("maxmemory", "1")  # it refuses writes
        try:
            publish(channel, queue, {"task_id": delivery_id, "result": 1})
            async with timeout(20):
                while len(attempts) < 2:  # the second follows a refused first one
                    await asyncio.sleep(0.02)
            assert not waiting.done()
        finally:
            redis.config_set("maxmemory", "0")
        async with timeout(30):
            return (await waiting).payload

    assert run.resume(asyncio.run(scenario())).value == 1


def test_amqp_sink_wait_ends_while_connecting_leaves_nothing_open(
    rabbitmq: RabbitMQ, queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection to a slow broker is made, and then closed."""

    async def scenario() -> set[asyncio.Task[Any]]:
        await wait_any(targets, deadline=0.0)
        await close_waiters()
        return asyncio.all_tasks() - {asyncio.current_task()}

    with Switch(rabbitmq.port, late=0.2) as line:
        url = f"amqp://guest:guest@127.0.0.1:{line.port}/%2F"
        monkeypatch.setenv("AIRFLOW_CONN_MQ", url)
        settings = load_settings("runqy_default")
        targets = (
            sink_from_uri(f"amqp://mq/{queue}")
            .bind(settings)
            .targets(JobRef("unknown"))
        )

        assert asyncio.run(scenario()) == set()


def test_amqp_sink_hundred_waits_share_one_consumer(
    rabbitmq: RabbitMQ, channel: BlockingChannel, queue: str
) -> None:
    settings = load_settings("runqy_default")
    sink = f"amqp://mq/{queue}"
    sink_from_uri(sink).bind(settings).check()
    ids = [f"{queue}-{n}" for n in range(100)]

    async def scenario() -> tuple[int, list[Any]]:
        waits = [start_wait(settings, sink, delivery_id) for delivery_id in ids]
        await wait_for_consumers(rabbitmq, queue)
        for delivery_id in ids:
            publish(channel, queue, {"task_id": delivery_id, "result": 1})
        arrivals = await asyncio.gather(*waits)
        consumers = channel.queue_declare(queue, passive=True).method.consumer_count
        await close_waiters()
        return consumers, arrivals

    consumers, arrivals = asyncio.run(scenario())

    assert consumers == 1
    assert {arrival.status for arrival in arrivals} == {"completed"}
