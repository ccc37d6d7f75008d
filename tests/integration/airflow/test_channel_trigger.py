"""The trigger of an AssetWatcher: deliveries become events, and are acknowledged."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest

from runqy_provider.airflow_compat import RELEASE
from runqy_provider.errors import Misconfigured
from runqy_provider.hooks.result import RunqyResultHook
from runqy_provider.hooks.runqy import RunqyHook
from runqy_provider.inbox import channel_reader
from runqy_provider.triggers import channel as channel_module
from runqy_provider.triggers.channel import ChannelProducer, DeliveryChannelTrigger
from runqy_sandbox.process.net import free_port

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
