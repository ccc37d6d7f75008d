"""Channels of the inbox: each delivery is read at least once, until acknowledged."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from redis import Redis

from runqy_delivery import Delivery, JobError
from runqy_provider.errors import Misconfigured, SinkUnavailable
from runqy_provider.inbox import channel_reader, keys
from runqy_provider.inbox.channel import channel_of, new_channel_delivery_id
from runqy_provider.inbox.channel_reader import ChannelReader
from runqy_provider.inbox.reader import InboxReader
from runqy_provider.inbox.writer import InboxWriter, Outcome, digest
from runqy_provider.redis_client import async_client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from runqy_provider.connections import RedisConnection


@pytest.fixture(autouse=True)
def short_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel_reader, "BLOCK", 200)


@pytest.fixture
async def writer(
    redis_settings: RedisConnection, conn_id: str
) -> AsyncIterator[InboxWriter]:
    client = async_client(redis_settings, most_connections=4)
    yield InboxWriter(client, redis_settings, conn_id, ttl=100)
    await client.aclose()


@pytest.fixture
async def reader(
    redis_settings: RedisConnection, conn_id: str
) -> AsyncIterator[Callable[..., ChannelReader]]:
    """Make readers of the channel ``c``."""
    made: list[ChannelReader] = []

    def make(group: str = "g", redis: RedisConnection = redis_settings) -> Any:
        made.append(ChannelReader(redis, conn_id, "c", group))
        return made[-1]

    yield make
    for each in made:
        await each.aclose()


async def put(writer: InboxWriter, delivery: Delivery) -> Outcome:
    return await writer.put(delivery, delivery.to_json(), digest(delivery))


async def deliver(writer: InboxWriter, result: Any = None, **fields: Any) -> str:
    delivery_id = new_channel_delivery_id("c")
    await put(writer, Delivery(delivery_id, result=result, **fields))
    return delivery_id


async def test_channel_delivery_event_says_where_and_what_the_result_is(
    writer: InboxWriter,
    reader: Callable[..., ChannelReader],
    redis_settings: RedisConnection,
    conn_id: str,
) -> None:
    delivery_id = await deliver(writer, {"a": 1}, metadata={"w": 2})
    [(_, event)] = await reader().read()

    assert event["channel"] == "c"
    assert event["status"] == "completed"
    assert event["reference"]["uri"] == f"inbox://{conn_id}/{delivery_id}"
    assert event["reference"]["content_type"] == "application/json"
    assert event["reference"]["metadata"] == {"w": 2}
    with InboxReader(redis_settings, conn_id) as inbox:
        stored = inbox.read(delivery_id)
    assert event["reference"]["size"] == stored.size
    assert event["delivered_at"] == pytest.approx(stored.delivered_at, abs=0.01)


async def test_channel_failure_event_has_error_and_no_reference(
    writer: InboxWriter, reader: Callable[..., ChannelReader]
) -> None:
    await deliver(writer, status="failed", error=JobError("out of memory"))
    [(_, event)] = await reader().read()

    assert event["status"] == "failed"
    assert event["error"] == "out of memory"
    assert "reference" not in event


async def test_channel_notification_names_result_in_its_sink(
    writer: InboxWriter, reader: Callable[..., ChannelReader]
) -> None:
    await deliver(writer, result_url="s3://results/x", content_type="image/png", size=9)
    [(_, event)] = await reader().read()

    reference = event["reference"]
    assert (reference["uri"], reference["size"]) == ("s3://results/x", 9)


async def test_channel_repeated_delivery_gives_one_event(
    writer: InboxWriter, reader: Callable[..., ChannelReader]
) -> None:
    delivery = Delivery(new_channel_delivery_id("c"), result=1)
    assert await put(writer, delivery) is Outcome.STORED
    assert await put(writer, delivery) is Outcome.REPEATED

    assert len(await reader().read()) == 1


async def test_channel_other_deliveries_give_no_event(
    writer: InboxWriter, reader: Callable[..., ChannelReader]
) -> None:
    await put(writer, Delivery("d", result=1))
    await put(writer, Delivery(new_channel_delivery_id("other"), result=1))
    await deliver(writer, "mine")

    [(_, event)] = await reader().read()
    assert event["channel"] == "c"


async def test_channel_entry_not_acknowledged_is_read_again_by_next_reader(
    writer: InboxWriter, reader: Callable[..., ChannelReader]
) -> None:
    for number in range(250):
        await deliver(writer, number)
    first = reader()
    entries = await first.read()
    await first.acknowledge([entry_id for entry_id, _ in entries[:40]])
    second = reader()
    again = await second.read()

    assert [each[0] for each in again] == [each[0] for each in entries[40:]]
    fresh = await second.read() + await second.read()
    assert len(entries) + len(fresh) == 250


async def test_channel_groups_read_all_deliveries_each(
    writer: InboxWriter, reader: Callable[..., ChannelReader]
) -> None:
    await deliver(writer, 1)

    assert len(await reader("a").read()) == 1
    assert len(await reader("b").read()) == 1


async def test_channel_reader_waits_for_next_delivery(
    writer: InboxWriter,
    reader: Callable[..., ChannelReader],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(channel_reader, "BLOCK", 5000)
    waiting = reader()
    assert await waiting.read() == []  # joined
    reading = asyncio.create_task(waiting.read())
    delivery_id = await deliver(writer, 1)

    [(_, event)] = await asyncio.wait_for(reading, 30)
    assert event["delivery_id"] == delivery_id


async def test_channel_expired_stream_loses_no_later_delivery(
    writer: InboxWriter,
    reader: Callable[..., ChannelReader],
    redis_url: str,
    conn_id: str,
) -> None:
    waiting = reader()
    await waiting.read()
    with Redis.from_url(redis_url) as redis:
        redis.delete(keys.channel(conn_id, "c"))
    await deliver(writer, 1)

    assert await waiting.read() == []  # notices that the stream is gone
    assert len(await waiting.read()) == 1


async def test_channel_stream_expires_with_its_deliveries(
    writer: InboxWriter, redis_url: str, conn_id: str
) -> None:
    await deliver(writer, 1)
    with Redis.from_url(redis_url) as redis:
        assert 0 < redis.ttl(keys.channel(conn_id, "c")) <= 100


async def test_channel_unavailable_redis_is_reported(
    reader: Callable[..., ChannelReader], unreachable_redis: RedisConnection
) -> None:
    with pytest.raises(SinkUnavailable, match="read a channel"):
        await reader(redis=unreachable_redis).read()


@pytest.mark.parametrize("channel", ["", "a b", "a--b", "x" * 65, "-a", "a/b"])
def test_channel_name_not_valid_is_refused(channel: str) -> None:
    with pytest.raises(Misconfigured, match="is not a valid channel"):
        new_channel_delivery_id(channel)


@pytest.mark.parametrize("channel", ["a", "a-b_c.d", "x" * 64])
def test_channel_of_new_delivery_id_is_the_channel(channel: str) -> None:
    assert channel_of(new_channel_delivery_id(channel)) == channel


@pytest.mark.parametrize("delivery_id", ["d", "channel--c--1", "channel--c"])
def test_channel_of_other_delivery_ids_is_none(delivery_id: str) -> None:
    assert channel_of(delivery_id) is None
