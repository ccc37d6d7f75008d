"""Channels of the inbox: each delivery is read at least once, until acknowledged."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from redis import Redis

from runqy_delivery import Delivery, JobError
from runqy_provider.errors import Misconfigured, SinkUnavailable
from runqy_provider.inbox import channel_reader, keys
from runqy_provider.inbox.callback_url import channel_of, new_channel_delivery_id
from runqy_provider.inbox.channel_reader import ChannelReader, ChannelTaker
from runqy_provider.inbox.reader import InboxReader
from runqy_provider.inbox.writer import InboxWriter, Outcome, digest
from runqy_provider.redis_client import async_client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from runqy_provider.redis_connection import RedisConnection


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


@pytest.fixture
def taker(
    redis_settings: RedisConnection, conn_id: str
) -> Iterator[Callable[..., ChannelTaker]]:
    """Make takers of the channel ``c``."""
    made: list[ChannelTaker] = []

    def make(consumer: str = "dag", attempt: str = "run/task") -> ChannelTaker:
        made.append(ChannelTaker(redis_settings, conn_id, "c", consumer, attempt))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    with Redis.from_url(redis_url) as redis:
        yield redis


async def deliver_many(writer: InboxWriter, count: int) -> list[int]:
    await asyncio.gather(*(deliver(writer, number) for number in range(count)))
    return list(range(count))


def ids_of(entries: list[channel_reader.Entry]) -> list[str]:
    return [entry_id for entry_id, _ in entries]


def take(taker: ChannelTaker, most: int = 1000) -> list[str]:
    return ids_of(taker.take(most, with_failures=False))


def age(redis: Redis, key: str, attempt: str, ids: list[str]) -> None:
    """Let it be long ago that an attempt took entries, or said that it holds them."""
    long = int(channel_reader.HELD_FOR * 1000) + 1
    redis.xclaim(key, "take:dag", attempt, 0, ids, idle=long, justid=True)  # type: ignore[arg-type] # its types are too narrow


def consumers(redis: Redis, key: str) -> list[Any]:
    found: list[Any] = redis.xinfo_consumers(key, "take:dag")
    return found


async def test_channel_taker_delivery_is_taken_once_by_each_consumer(
    writer: InboxWriter,
    taker: Callable[..., ChannelTaker],
    redis: Redis,
    conn_id: str,
) -> None:
    await deliver_many(writer, 250)
    first = taker()
    ids = take(first)
    assert len(ids) == 250
    assert take(taker(attempt="run 2/task")) == []
    first.acknowledge(ids)
    assert take(taker(attempt="run 3/task")) == []

    assert take(taker(consumer="other")) == ids
    assert consumers(redis, keys.channel(conn_id, "c")) == [], "all have ended"


async def test_channel_taker_at_once_share_what_is_there(
    writer: InboxWriter, taker: Callable[..., ChannelTaker]
) -> None:
    await deliver_many(writer, 200)
    takers = [taker(attempt=f"run/task/{index}") for index in range(8)]
    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(lambda each: take(each, 25), takers))

    assert [len(ids) for ids in taken] == [25] * 8
    assert len({entry_id for ids in taken for entry_id in ids}) == 200


async def test_channel_taker_next_try_takes_what_the_one_before_held(
    writer: InboxWriter, taker: Callable[..., ChannelTaker]
) -> None:
    await deliver(writer, 1)
    ids = take(taker())
    await deliver(writer, 2)
    again = take(taker())

    assert again[:1] == ids
    assert len(again) == 2
    assert take(taker(), most=1) == ids


async def test_channel_taker_dead_attempt_leaves_deliveries_to_others(
    writer: InboxWriter,
    taker: Callable[..., ChannelTaker],
    redis: Redis,
    conn_id: str,
) -> None:
    key = keys.channel(conn_id, "c")
    await deliver_many(writer, 30)
    held = take(taker(attempt="held"), 20)
    dead = take(taker(attempt="dead"), 10)
    assert take(taker(attempt="next")) == []
    age(redis, key, "dead", dead)

    following = taker(attempt="next")
    assert take(following, 3) == dead[:3], "older ones are held by another"
    assert take(following) == dead
    assert set(held).isdisjoint(dead)


async def test_channel_taker_living_attempt_keeps_what_it_holds(
    writer: InboxWriter,
    taker: Callable[..., ChannelTaker],
    redis: Redis,
    conn_id: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await deliver(writer, 1)
    holder = taker()
    ids = take(holder)
    age(redis, keys.channel(conn_id, "c"), "run/task", ids)
    with monkeypatch.context() as patch:
        patch.setattr(channel_reader, "HELD_FOR", 0.1)
        holder.hold()
        end = time.monotonic() + 30
        while take_idle(redis, conn_id) > 1000:
            assert time.monotonic() < end, "it does not say that it holds them"

    assert take(taker(attempt="other")) == []
    holder.acknowledge(ids)


def take_idle(redis: Redis, conn_id: str) -> int:
    """Return the milliseconds for which an entry is held."""
    [row] = redis.xpending_range(keys.channel(conn_id, "c"), "take:dag", "-", "+", 10)
    return int(row["time_since_delivered"])


async def test_channel_taker_removed_entry_counts_as_acknowledged(
    writer: InboxWriter,
    taker: Callable[..., ChannelTaker],
    redis: Redis,
    conn_id: str,
) -> None:
    key = keys.channel(conn_id, "c")
    await deliver_many(writer, 3)
    ids = take(taker(attempt="dead"))
    age(redis, key, "dead", ids)
    redis.xdel(key, *ids[:2])

    assert take(taker()) == ids[2:]
    [row] = redis.xpending_range(key, "take:dag", "-", "+", 10)
    assert row["message_id"] == ids[2].encode()


async def test_channel_taker_failures_are_taken_only_where_wanted(
    writer: InboxWriter, taker: Callable[..., ChannelTaker]
) -> None:
    await deliver(writer, status="failed", error=JobError("broken"))
    await deliver(writer, 1)
    assert len(take(taker())) == 1

    other = taker(consumer="other").take(10, with_failures=True)
    assert [event["status"] for _, event in other] == ["failed", "completed"]


async def test_channel_taker_channel_without_deliveries_has_none(
    taker: Callable[..., ChannelTaker], redis: Redis, conn_id: str
) -> None:
    assert take(taker()) == []
    assert not redis.exists(keys.channel(conn_id, "c"))


async def test_channel_event_of_expired_delivery_is_removed(
    writer: InboxWriter,
    taker: Callable[..., ChannelTaker],
    redis: Redis,
    conn_id: str,
) -> None:
    seconds, _ = redis.time()
    old, younger = (seconds - 101) * 1000, (seconds - 50) * 1000
    for at in (old, younger):
        redis.xadd(
            keys.channel(conn_id, "c"),
            {"event": '{"status": "completed"}'},
            id=f"{at}-0",
        )
    await deliver(writer, 1)

    ids = take(taker())
    assert len(ids) == 2
    assert ids[0] == f"{younger}-0"


def is_completed(event: dict[str, Any]) -> bool:
    return bool(event["status"] == "completed")


async def test_channel_leftovers_are_what_no_task_has_taken(
    writer: InboxWriter,
    reader: Callable[..., ChannelReader],
    taker: Callable[..., ChannelTaker],
) -> None:
    await deliver(writer, 1)
    reading = reader()
    await reading.read()
    assert await reading.leftovers(is_completed, 100) == [], "no task takes"
    first = taker()
    ids = take(first)
    assert await reading.leftovers(is_completed, 100) == [], "it is being worked on"
    first.acknowledge(ids)
    assert await reading.leftovers(is_completed, 100) == []

    await deliver(writer, status="failed", error=JobError("broken"))
    assert await reading.leftovers(is_completed, 100) == []
    delivery_id = await deliver(writer, 2)
    await deliver(writer, 3)
    [left] = await reading.leftovers(is_completed, 100)
    assert left.consumer == "dag"
    assert left.entry[1]["delivery_id"] == delivery_id


async def test_channel_leftovers_are_what_a_dead_attempt_held(
    writer: InboxWriter,
    reader: Callable[..., ChannelReader],
    taker: Callable[..., ChannelTaker],
    redis: Redis,
    conn_id: str,
) -> None:
    await deliver_many(writer, 3)
    ids = take(taker())
    age(redis, keys.channel(conn_id, "c"), "run/task", ids[1:])

    [left] = await reader().leftovers(is_completed, 100)
    assert left.entry[0] == ids[1]


async def test_channel_leftovers_of_a_consumer_that_is_gone_do_not_count(
    writer: InboxWriter,
    reader: Callable[..., ChannelReader],
    taker: Callable[..., ChannelTaker],
    redis: Redis,
    conn_id: str,
) -> None:
    await deliver(writer, 1)
    take(taker())
    later = redis.time()[0] + 101
    redis.xadd(
        keys.channel(conn_id, "c"),
        {"event": '{"status": "completed"}'},
        id=f"{later * 1000}-0",
    )

    assert await reader().leftovers(is_completed, 100) == []
    assert len(await reader().leftovers(is_completed, 200)) == 1
