"""The trigger of an AssetWatcher, and the tasks that take what is on its channel."""

from __future__ import annotations

import asyncio
import time
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk import DAG, task
from redis import Redis

from runqy_delivery import Delivery
from runqy_provider.airflow_compat import RELEASE
from runqy_provider.errors import Misconfigured
from runqy_provider.hooks.result import RunqyResultHook
from runqy_provider.hooks.runqy import RunqyHook
from runqy_provider.inbox import channel_reader, keys
from runqy_provider.inbox.channel_reader import Leftover
from runqy_provider.inbox.writer import InboxWriter, digest
from runqy_provider.redis_client import async_client
from runqy_provider.settings import load_settings
from runqy_provider.triggers import channel as channel_module
from runqy_provider.triggers.channel import (
    ChannelProducer,
    DeliveryChannelTrigger,
    Reminders,
)
from runqy_sandbox.process.net import free_port
from tests.support.harness import Run

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tests.support.stack import Stack

pytestmark = pytest.mark.usefixtures("connect")


@pytest.fixture(autouse=True)
def short_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel_reader, "BLOCK", 200)
    monkeypatch.setattr(channel_module, "FIRST_DELAY", 0.1)


@pytest.fixture
def channel(conn_id: str) -> str:
    """A channel that only this test uses."""
    return conn_id


@pytest.fixture
def trigger(channel: str) -> DeliveryChannelTrigger:
    """A trigger, as Airflow makes it again from its database."""
    path, arguments = DeliveryChannelTrigger(channel).serialize()
    assert path == "runqy_provider.triggers.channel.DeliveryChannelTrigger"
    return DeliveryChannelTrigger(**arguments)


def submit(channel: str, payload: dict[str, Any], sink: str = "webhook") -> str:
    with RunqyHook() as hook:
        delivery_id = hook.new_delivery_id(channel)
        hook.submit(
            sink,
            runqy_queue="helper",
            payload=payload,
            delivery_id=delivery_id,
            deadline=time.time() + 60,
        )
    return delivery_id


async def first(events: AsyncIterator[Any]) -> Any:
    return await asyncio.wait_for(anext(events), 30)


def producer_of(trigger: DeliveryChannelTrigger) -> ChannelProducer:
    return trigger.create_shared_stream_producer(trigger.serialize()[1])


async def test_channel_trigger_job_fires_with_readable_reference(
    channel: str, trigger: DeliveryChannelTrigger
) -> None:
    delivery_id = await asyncio.to_thread(submit, channel, {"value": {"text": "hi"}})
    events = trigger.run()
    payload = (await first(events)).payload
    await events.aclose()

    assert payload["delivery_id"] == delivery_id
    read = RunqyResultHook().read
    value = await asyncio.to_thread(lambda: read(payload["reference"]).json())
    assert value == {"text": "hi"}


async def test_channel_trigger_result_in_bucket_fires_with_its_reference(
    channel: str, trigger: DeliveryChannelTrigger
) -> None:
    sink = "s3://results/channel webhook"
    await asyncio.to_thread(submit, channel, {"bytes": 2000}, sink)
    events = trigger.run()
    reference = (await first(events)).payload["reference"]
    await events.aclose()

    assert reference["uri"].startswith("s3://results/channel/")
    assert reference["size"] == 2000
    read = RunqyResultHook().read
    assert await asyncio.to_thread(lambda: read(reference).bytes()) == b"x" * 2000


async def test_channel_trigger_failure_fires_only_where_wanted(channel: str) -> None:
    await asyncio.to_thread(submit, channel, {"error": "broken"})
    with_failures = DeliveryChannelTrigger(channel, with_failures=True).run()
    payload = (await first(with_failures)).payload
    await with_failures.aclose()
    assert payload["error"] == "broken"

    await asyncio.to_thread(submit, channel, {"value": 1})
    without = DeliveryChannelTrigger(channel).run()
    assert (await first(without)).payload["status"] == "completed"
    await without.aclose()


@pytest.mark.skipif(RELEASE < (3, 3), reason="Airflow does not share streams yet")
async def test_channel_producer_stored_event_is_not_read_again(
    channel: str, trigger: DeliveryChannelTrigger
) -> None:
    ids = [
        await asyncio.to_thread(submit, channel, {"value": number})
        for number in range(2)
    ]
    producer = producer_of(trigger)
    stream = producer.open_stream()
    read = [await first(stream), await first(stream)]
    assert {event["delivery_id"] for event, _ in read} == set(ids)
    from airflow.triggers.shared_stream import AdvanceItem, AdvanceOutcome

    await producer.advance(
        [
            AdvanceItem(read[0][1], AdvanceOutcome(acked=1, failed=0, rejected=0)),
            AdvanceItem(read[1][1], AdvanceOutcome(acked=0, failed=1, rejected=0)),
        ]
    )
    await stream.aclose()
    await producer.aclose()

    following = producer_of(trigger)
    stream = following.open_stream()
    event, _ = await first(stream)
    assert event["delivery_id"] == read[1][0]["delivery_id"]
    await stream.aclose()
    await following.aclose()


async def test_channel_producer_unavailable_redis_is_tried_again(
    channel: str,
    trigger: DeliveryChannelTrigger,
    connect: Callable[..., Any],
    stack: Stack,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await asyncio.to_thread(submit, channel, {"value": 1})
    monkeypatch.setenv("AIRFLOW_CONN_AWAY", f"redis://127.0.0.1:{free_port()}")
    connect(redis_conn_id="away")
    producer = producer_of(trigger)
    stream = producer.open_stream()
    reading = asyncio.ensure_future(anext(stream))
    while "cannot be read, will retry" not in caplog.text:
        await asyncio.sleep(0.05)
    await producer.aclose()
    connect()

    event, _ = await asyncio.wait_for(reading, 30)
    assert event["channel"] == channel
    assert stack.sandbox.redis_url
    await stream.aclose()
    await producer.aclose()


def test_channel_trigger_other_arguments_share_no_stream() -> None:
    one, same = DeliveryChannelTrigger("a"), DeliveryChannelTrigger("a")
    other = DeliveryChannelTrigger("a", with_failures=True)

    assert one.shared_stream_key() == same.shared_stream_key()
    assert one.shared_stream_key() != other.shared_stream_key()


def test_submit_to_channel_without_webhook_is_refused(channel: str) -> None:
    with pytest.raises(Misconfigured, match="sink='s3://results webhook'"):
        submit(channel, {}, "s3://results")


def deliver(channel: str, *results: Any) -> list[str]:
    """Store results as the receiver does, without a job."""
    redis = load_settings("runqy_default").redis
    assert redis is not None

    async def put_all() -> list[str]:
        ids = [RunqyHook.new_delivery_id(channel) for _ in results]
        async with async_client(redis, most_connections=1) as client:
            writer = InboxWriter(client, redis, "runqy_default", ttl=1000)
            for delivery_id, result in zip(ids, results, strict=True):
                delivery = Delivery(delivery_id, result=result)
                await writer.put(delivery, delivery.to_json(), digest(delivery))
        return ids

    return asyncio.run(put_all())


def run_of_take(channel: str, fails: list[bool], dag_id: str = "takes") -> Run:
    """Return a run of a task that takes, and fails as long as a list is not empty."""
    with DAG(dag_id, schedule=None):

        @task(retries=1)
        def take() -> list[Any]:
            hook = RunqyResultHook()
            values = [
                hook.read(each["reference"]).json() for each in hook.take(channel)
            ]
            if fails:
                raise ValueError(fails.pop())
            return values

        output: Any = take()
    return Run(output.operator)


def test_take_delivery_is_acknowledged_when_the_task_has_succeeded(
    channel: str,
) -> None:
    deliver(channel, "a", "b")
    run = run_of_take(channel, []).execute()
    assert (run.state, run.value) == ("success", ["a", "b"])
    deliver(channel, "c")

    assert run_of_take(channel, []).execute().value == ["c"]
    assert run_of_take(channel, []).execute().value == []
    assert run_of_take(channel, [], "another").execute().value == ["a", "b", "c"]


def test_take_failed_task_retry_takes_the_same_again(channel: str) -> None:
    deliver(channel, "a")
    run = run_of_take(channel, [True]).execute()
    assert run.state != "success"
    deliver(channel, "b")
    assert run_of_take(channel, []).execute().value == ["b"], "the retry gets the other"

    run.try_number = 2
    assert run.execute().value == ["a"]
    assert run_of_take(channel, []).execute().value == []


def test_take_failed_task_of_the_same_operator_is_not_acknowledged(
    channel: str, stack: Stack
) -> None:
    """In dag.test(), runs share an operator."""
    deliver(channel, "a")
    first = run_of_take(channel, [True]).execute()
    deliver(channel, "b")
    assert Run(first.task).execute().value == ["b"]

    with Redis.from_url(stack.sandbox.redis_url) as redis:
        key = keys.channel("runqy_default", channel)
        waiting: Any = redis.xpending(key, "take:takes")
    assert waiting["pending"] == 1


def test_take_tasks_of_one_consumer_share_deliveries(channel: str) -> None:
    ids = deliver(channel, *range(4))
    with DAG("shares", schedule=None):

        @task
        def take() -> list[str]:
            hook = RunqyResultHook()
            return [
                each["delivery_id"] for each in hook.take(channel, "shared", most=2)
            ]

        output: Any = take()
    runs = [Run(output.operator, map_index=index) for index in range(3)]

    assert [run.execute().value for run in runs] == [ids[:2], ids[2:], []]


def test_take_outside_a_task_is_refused(channel: str) -> None:
    with pytest.raises(Misconfigured, match="no task runs here"):
        RunqyResultHook().take(channel)
    with pytest.raises(Misconfigured, match="most"):
        RunqyResultHook().take(channel, most=0)
    with pytest.raises(Misconfigured, match="is not a valid channel"):
        RunqyResultHook().take("a--b")


def fired_by(trigger: DeliveryChannelTrigger, count: int) -> list[str]:
    """Return the ids of the deliveries that a trigger fires for."""

    async def fire() -> list[str]:
        events = trigger.run()
        ids = [(await first(events)).payload["delivery_id"] for _ in range(count)]
        await events.aclose()
        return ids

    return asyncio.run(fire())


def test_channel_trigger_delivery_that_no_run_takes_fires_again(
    channel: str, trigger: DeliveryChannelTrigger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if Airflow had lost the event, or the DAG was paused."""
    for name in ("LOOK_EVERY", "FIRST_REMINDER"):
        monkeypatch.setattr(channel_module, name, 0.2)
    [known] = deliver(channel, "known")
    run_of_take(channel, []).execute()
    assert fired_by(trigger, 1) == [known]
    [left] = deliver(channel, "left")
    # The trigger was stopped before it had acknowledged the first one.
    assert fired_by(trigger, 5) == [known] + [left] * 4

    assert run_of_take(channel, []).execute().value == ["left"]
    [other] = deliver(channel, "other")
    assert fired_by(trigger, 4)[1:] == [other] * 3, "what was taken does not fire"


def test_channel_trigger_what_came_fires_before_anything_fires_again(
    channel: str, trigger: DeliveryChannelTrigger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel_module, "FIRST_REMINDER", 0.0)
    [known] = deliver(channel, "known")
    run_of_take(channel, []).execute()
    assert fired_by(trigger, 1) == [known]
    [left] = deliver(channel, "left")

    # If it looked for what is left first, that would fire before the other.
    assert fired_by(trigger, 2) == [known, left]


def test_channel_trigger_user_with_old_permissions_still_fires(
    channel: str,
    trigger: DeliveryChannelTrigger,
    stack: Stack,
    monkeypatch: pytest.MonkeyPatch,
    connect: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    with Redis.from_url(stack.sandbox.redis_url) as redis:
        execute: Any = redis.execute_command  # it has no types
        execute("ACL", "SETUSER", channel, "on", ">p", "~*", "&*", "+@all", "-xinfo")
    address = stack.sandbox.redis_url.replace("redis://", f"redis://{channel}:p@")
    monkeypatch.setenv("AIRFLOW_CONN_OLD_USER", address)
    connect(redis_conn_id="old_user")
    monkeypatch.setattr(channel_module, "LOOK_EVERY", 0.0)
    ids = deliver(channel, "known", "new")

    assert fired_by(trigger, 2) == ids
    assert "lacks a permission" in caplog.text


def test_channel_reminders_come_ever_later_until_there_is_progress() -> None:
    reminders = Reminders()
    stays = Leftover("dag", "1-0", ("1-0", {}))
    times = [now for now in range(0, 20_000, 15) if reminders.due([stays], now)]
    gaps = [after - before for before, after in pairwise(times)]

    assert times[0] == 60
    assert gaps[:6] == [120, 240, 480, 960, 1920, 3600]
    assert set(gaps[5:]) == {3600}
    moved = stays._replace(mark="2-0")
    assert not reminders.due([moved], 20_000)
    assert reminders.due([moved], 20_060) == [moved]
    assert not reminders.due([], 20_070)
    assert not reminders.due([moved], 20_080), "it was taken, and counts from now on"
