"""The primary sink has the result, the notifiers report it."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from runqy_provider.errors import DeliveryTimeout, HeartbeatTimeout, JobFailed
from runqy_provider.hooks.result import RunqyResultHook
from runqy_provider.models import JobRef, is_reference
from runqy_provider.settings import load_settings
from runqy_provider.sinks.registry import sink_from_uri
from runqy_provider.waiters.race import wait_any
from runqy_provider.waiters.waiter import close_waiters
from tests.support import harness
from tests.support.harness import Run, outcome_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from devtools.servers.postgres import Postgres
    from devtools.servers.rabbitmq import RabbitMQ
    from runqy_provider.waiters.source import Arrival
    from tests.support.stack import Gate

pytestmark = pytest.mark.usefixtures("connect", "no_settling")

S3, SQL, AMQP = "s3://results/both", "sql://pg/tasks", "amqp://rabbit/notices"

#: Each kind as the first one, and beside each other kind.
COMBINATIONS = [
    [S3, SQL, "webhook", AMQP],
    [SQL, AMQP, "webhook"],
    ["webhook", AMQP],
    ["webhook", SQL],
    [AMQP, SQL, "webhook"],
]


def run_of(
    sink: Any, payload: Any = None, runqy_queue: str = "helper", **arguments: Any
) -> Run:
    return harness.run_of(payload, runqy_queue, sink=sink, **arguments)


def row_of(postgres: Postgres, run: Run) -> tuple[str, Any]:
    with postgres.connect() as connection:
        row = connection.execute(
            "SELECT status, result FROM tasks WHERE id = %s",
            [run.xcoms["runqy_job"]["delivery_id"]],
        ).fetchone()
    assert row is not None
    return row[0], row[1]


@pytest.mark.parametrize("sink", COMBINATIONS)
def test_combined_sink_value_is_returned(sink: list[str]) -> None:
    run = run_of(sink, {"value": {"a": 1}})

    assert outcome_of(run) == {"a": 1}
    assert run.xcoms["runqy_job"]["sink"] == " ".join(sink)


@pytest.mark.parametrize("sink", COMBINATIONS)
def test_combined_sink_failure_is_raised(sink: list[str]) -> None:
    with pytest.raises(JobFailed, match="ValueError: too dark"):
        outcome_of(run_of(sink, {"error": "too dark"}))


@pytest.mark.parametrize("sink", [[S3, SQL, "webhook"], [S3, AMQP]])
def test_combined_sink_bytes_are_in_primary_and_table_names_them(
    sink: list[str], postgres: Postgres
) -> None:
    run = run_of(sink, {"bytes": 2_000_000})
    value = outcome_of(run)

    assert is_reference(value)
    assert value["uri"].startswith(S3)
    assert RunqyResultHook().read(value).bytes() == b"x" * 2_000_000
    if SQL in sink:
        status, result = row_of(postgres, run)
        notice = json.loads(result)
        assert status == "completed"
        assert (notice["result_url"], notice["size"]) == (value["uri"], 2_000_000)


def test_combined_sink_table_alone_ends_the_wait(
    connect: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(without=("callback_secret",))
    monkeypatch.setenv("AIRFLOW__RUNQY__OBJECT_SWEEP_SECONDS", "600")
    run = run_of([S3, SQL], {"seconds": 1, "value": 1}).execute()

    event = run.fire()

    assert event["result_uri"].startswith(SQL)
    assert run.resume(event).value == 1
    assert run.xcoms["runqy_delivery"]["where"].startswith(S3)


@pytest.mark.parametrize("own_key", [True, False])
def test_combined_sink_guide_style_task_code_runs_unmodified(own_key: bool) -> None:
    """The task code stores an object, and then a row with its URI, or without one."""
    run = run_of([S3, SQL], {"own_key": own_key}, "guide_combined")

    assert outcome_of(run) == [1, 2]


def test_combined_sink_in_connection_is_used(connect: Callable[..., Any]) -> None:
    connect(sink=f"{S3} {SQL}")

    run = harness.run_of({"value": 3})

    assert outcome_of(run) == 3
    assert run.xcoms["runqy_job"]["sink"] == f"{S3} {SQL}"


def test_combined_sink_notifier_error_primary_is_still_polled(
    postgres: Postgres, gate: Gate
) -> None:
    """The table is dropped while the job runs; the object is found nevertheless."""
    with postgres.connect() as connection:
        connection.execute("CREATE TABLE dropped AS SELECT * FROM tasks WHERE false")
    run = run_of([S3, "sql://pg/dropped"], {"value": 5, **gate.closed}).execute()
    with postgres.connect() as connection:
        connection.execute("DROP TABLE dropped")
    gate.open()

    assert run.resume(run.fire()).value == 5


@pytest.mark.parametrize("sink", [[AMQP, "webhook"], ["webhook", AMQP]])
def test_combined_sink_webhook_and_messages_do_not_block_each_other(
    sink: list[str], rabbitmq: RabbitMQ
) -> None:
    connection = rabbitmq.connect()
    channel = connection.channel()
    channel.queue_declare("notices.rejected", durable=True)
    channel.queue_purge("notices.rejected")

    outcomes = [outcome_of(run_of(sink, {"value": n})) for n in range(2)]
    image = outcome_of(run_of(sink, {"bytes": 100_000}))

    assert outcomes == [0, 1]
    assert RunqyResultHook().read(image).bytes() == b"x" * 100_000
    rejected = channel.queue_declare("notices.rejected", passive=True).method
    assert rejected.message_count == 0
    connection.close()


def test_combined_sink_only_webhook_failure_ends_message_wait(
    rabbitmq: RabbitMQ,
) -> None:
    """The webhook may be earlier than the message, which has the result."""
    queue = f"late-{uuid.uuid4().hex}"
    settings = load_settings("runqy_default")
    sink = sink_from_uri(f"amqp://rabbit/{queue} webhook").bind(settings)
    sink.check()

    def post(**fields: Any) -> str:
        delivery_id = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{queue}{fields}"))
        request = sink.request(delivery_id, time.time() + 600)
        body = {"task_id": delivery_id, "result_url": request.url, **fields}
        response = httpx.post(str(request.webhook_url), json=body)
        assert response.status_code == 200
        return delivery_id

    def wait(delivery_id: str, seconds: float) -> Arrival | None:
        async def scenario() -> Arrival | None:
            targets = sink.targets(JobRef(delivery_id))
            try:
                return await wait_any(targets, deadline=time.time() + seconds)
            finally:
                await close_waiters()

        return asyncio.run(scenario())

    delivery_id = post()
    assert wait(delivery_id, 1) is None
    connection = rabbitmq.connect()
    message = json.dumps({"task_id": delivery_id, "result": 1}).encode()
    connection.channel().basic_publish("", queue, message, mandatory=True)
    connection.close()
    arrival = wait(delivery_id, 20)
    assert arrival is not None
    assert sink.open(arrival.result_uri).json() == 1

    failed = wait(post(status="failed", error="too dark"), 20)
    assert failed is not None
    assert sink.open(failed.result_uri).error is not None


def test_combined_sink_amqp_primary_progress_arrives_by_webhook(
    gate: Gate,
) -> None:
    payload = {"value": 7, "progress": 0.25, **gate.closed}
    run = run_of([AMQP, "webhook"], payload, heartbeat_timeout=timedelta(seconds=1))
    run.execute()
    event = run.fire()

    with pytest.raises(HeartbeatTimeout, match="Last progress: 25% rendering"):
        raise run.resume(event).error


def test_combined_sink_timeout_names_all_sinks() -> None:
    run = run_of([S3, SQL], {}, "idle", delivery_timeout=timedelta(seconds=0.5))

    with pytest.raises(DeliveryTimeout) as caught:
        outcome_of(run)
    assert f"No object was found at {S3}/" in str(caught.value)
    assert "has the status 'pending'" in str(caught.value)
