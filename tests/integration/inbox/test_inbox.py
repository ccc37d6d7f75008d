"""The inbox in a real Redis: how deliveries are stored, noticed, read and removed."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest
from redis import Redis

from runqy_delivery import BadDelivery, Delivery, JobError
from runqy_provider.errors import NoAccess, NotThere, SinkUnavailable
from runqy_provider.inbox import keys
from runqy_provider.inbox.reader import InboxReader, InboxSource
from runqy_provider.inbox.writer import InboxWriter, Outcome, digest
from runqy_provider.redis_client import async_client
from runqy_provider.redis_connection import RedisConnection
from runqy_provider.waiters.source import StatusUpdate
from runqy_provider.waiters.waiter import Waiter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def writer(
    redis_settings: RedisConnection, conn_id: str
) -> AsyncIterator[InboxWriter]:
    client = async_client(redis_settings, most_connections=64)
    yield InboxWriter(client, redis_settings, conn_id, ttl=100)
    await client.aclose()


async def put(writer: InboxWriter, delivery: Delivery) -> Outcome:
    return await writer.put(delivery, delivery.to_json(), digest(delivery))


async def test_inbox_delivery_is_read_back_unchanged(
    writer: InboxWriter, redis_settings: RedisConnection, conn_id: str
) -> None:
    delivery = Delivery("d", result={"a": [1, "ü"]}, metadata={"w": 1})
    before = time.time()

    assert await put(writer, delivery) is Outcome.STORED

    with InboxReader(redis_settings, conn_id) as reader:
        stored = reader.read("d")
    assert stored.delivery == delivery
    assert stored.size == len(delivery.to_json())
    assert before - 0.01 <= stored.delivered_at <= time.time()


async def test_inbox_second_final_delivery_is_conflict(
    writer: InboxWriter, redis_settings: RedisConnection, conn_id: str
) -> None:
    first = Delivery("d", result=1)

    outcomes = [
        await put(writer, first),
        await put(writer, first),
        await put(writer, Delivery("d", result=2)),
        await put(writer, Delivery("d", status="failed", error=JobError("late"))),
    ]

    assert outcomes == [
        Outcome.STORED,
        Outcome.REPEATED,
        Outcome.CONFLICT,
        Outcome.CONFLICT,
    ]
    with InboxReader(redis_settings, conn_id) as reader:
        assert reader.read("d").delivery == first


async def test_inbox_concurrent_deliveries_one_is_stored(writer: InboxWriter) -> None:
    deliveries = [Delivery("d", result=n % 5) for n in range(50)]

    outcomes = await asyncio.gather(*(put(writer, each) for each in deliveries))

    assert outcomes.count(Outcome.STORED) == 1
    assert outcomes.count(Outcome.REPEATED) == 9
    assert outcomes.count(Outcome.CONFLICT) == 40


async def test_inbox_same_failure_again_is_repeated(writer: InboxWriter) -> None:
    first = Delivery("d", status="failed", error=JobError("boom", "E", "line 1"))
    again = Delivery("d", status="failed", error=JobError("boom", "E", "line 2"))

    assert await put(writer, first) is Outcome.STORED
    assert await put(writer, again) is Outcome.REPEATED


async def test_inbox_same_json_spelled_otherwise_is_repeated(
    writer: InboxWriter,
) -> None:
    spaced = b'{"status": "completed",  "task_id": "d", "result": {"b": 1, "a": 2}}'
    other = b'{"result":{"a":2,"b":1},"task_id":"d"}'
    for body, outcome in ((spaced, Outcome.STORED), (other, Outcome.REPEATED)):
        delivery = Delivery.from_json(body)
        assert await writer.put(delivery, body, digest(delivery)) is outcome


async def test_inbox_progress_is_not_an_arrival(
    writer: InboxWriter, redis_settings: RedisConnection, conn_id: str
) -> None:
    for fraction in (0.1, 0.2):
        progress = Delivery("d", status="progress", fraction=fraction)
        assert await put(writer, progress) is Outcome.NOTED

    source = InboxSource(redis_settings, conn_id)
    try:
        found = await source.poll(["d", "other"])
    finally:
        await source.aclose()
    assert set(found) == {"d"}
    update = found["d"]
    assert isinstance(update, StatusUpdate)
    assert (update.message, update.is_progress) == ("20%", True)
    assert abs(time.time() - (update.reported_at or 0)) < 60
    with InboxReader(redis_settings, conn_id) as reader, pytest.raises(NotThere):
        reader.read("d")


async def test_inbox_every_key_expires(
    writer: InboxWriter, redis_settings: RedisConnection, conn_id: str
) -> None:
    await put(writer, Delivery("d", result=1))
    await put(writer, Delivery("d", status="progress", text="t"))
    redis = Redis(**dict(redis_settings.options))

    left = {key: redis.ttl(key) for key in redis.keys(f"*{conn_id}*")}
    assert len(left) == 3, "the delivery, its progress, and the record"
    assert all(0 < seconds <= 100 for seconds in left.values())

    with InboxReader(redis_settings, conn_id) as reader:
        reader.forget("d")
        assert 0 < redis.ttl(keys.delivery(conn_id, "d")) <= keys.READ_TTL
        assert not redis.exists(keys.progress(conn_id, "d"))
        assert reader.read("d").delivery.result == 1
    redis.close()


def test_inbox_missing_delivery_error_names_key(
    redis_settings: RedisConnection, conn_id: str
) -> None:
    with (
        InboxReader(redis_settings, conn_id) as reader,
        pytest.raises(NotThere, match=f"key runqy:inbox:{conn_id}:delivery:d"),
    ):
        reader.read("d")


async def test_inbox_redis_unavailable_error_names_address(
    unreachable_redis: RedisConnection, conn_id: str
) -> None:
    client = async_client(unreachable_redis, most_connections=1)
    delivery = Delivery("d", result=1)
    with pytest.raises(SinkUnavailable, match=f"Redis at {unreachable_redis.address}"):
        await InboxWriter(client, unreachable_redis, conn_id).put(delivery, b"{}", "x")
    with (
        InboxReader(unreachable_redis, conn_id) as reader,
        pytest.raises(SinkUnavailable, match="read a delivery") as caught,
    ):
        reader.read("d")
    assert "Start it, or correct host and port" in str(caught.value)
    await client.aclose()


def test_inbox_wrong_password_is_no_access(
    redis_settings: RedisConnection, conn_id: str
) -> None:
    redis = Redis(**dict(redis_settings.options))
    user = f"user-{conn_id}"
    redis.acl_setuser(user, enabled=True, passwords=["+correct"], commands=["+ping"])
    options = (*redis_settings.options, ("username", user))
    try:
        for password in ("wrong", "correct"):
            settings = RedisConnection("r", "a", (*options, ("password", password)))
            with (
                InboxReader(settings, conn_id) as reader,
                pytest.raises(NoAccess, match="login and password") as caught,
            ):
                reader.read("d")
            assert f"'{password}'" not in str(caught.value)
    finally:
        redis.acl_deluser(user)
        redis.close()


def test_inbox_digest_of_deep_nesting_is_bad_delivery() -> None:
    nested: list[object] = []
    for _ in range(100_000):
        nested = [nested]

    with pytest.raises(BadDelivery, match="nested too deeply"):
        digest(Delivery("d", result=nested))


async def test_inbox_source_hint_ends_wait_at_once(
    writer: InboxWriter, redis_settings: RedisConnection, conn_id: str
) -> None:
    waiter = Waiter(InboxSource(redis_settings, conn_id), interval=60)
    early = Delivery("early", status="failed", error=JobError("x"))
    await put(writer, early)

    arrival = await waiter.wait("early", deadline=time.time() + 20)
    assert arrival is not None
    assert (arrival.status, arrival.result_uri) == (
        "failed",
        keys.delivery_uri(conn_id, "early"),
    )

    wait = asyncio.create_task(waiter.wait("late", deadline=time.time() + 20))
    await asyncio.sleep(0)
    await put(writer, Delivery("late", result=1))
    arrival = await wait
    assert arrival is not None
    assert arrival.status == "completed"
    await waiter.aclose()


async def test_inbox_source_hundred_waits_use_two_connections(
    writer: InboxWriter, redis_settings: RedisConnection, conn_id: str
) -> None:
    """One connection listens and one polls, for any number of waits."""
    redis = Redis(**dict(redis_settings.options))
    await put(writer, Delivery("first", result=1))
    others = {client["id"] for client in redis.client_list()}
    waiter = Waiter(InboxSource(redis_settings, conn_id), interval=60)
    waits = [
        asyncio.create_task(waiter.wait(f"d{n}", deadline=time.time() + 50))
        for n in range(100)
    ]
    await waiter.wait("first", deadline=time.time() + 20)
    while not redis.pubsub_numsub(keys.arrivals(conn_id))[0][1]:
        await asyncio.sleep(0.01)

    ours = [c for c in redis.client_list() if c["id"] not in others]
    assert sorted(int(client["sub"]) for client in ours) == [0, 1]

    for n in range(100):
        await put(writer, Delivery(f"d{n}", result=n))
    assert all(await asyncio.gather(*waits))
    await waiter.aclose()
    redis.close()


async def test_inbox_source_connection_lost_wait_continues(
    writer: InboxWriter, redis_settings: RedisConnection, conn_id: str
) -> None:
    redis = Redis(**dict(redis_settings.options))
    waiter = Waiter(InboxSource(redis_settings, conn_id), interval=60)
    wait = asyncio.create_task(waiter.wait("d", deadline=time.time() + 50))
    channel = keys.arrivals(conn_id)
    while not redis.pubsub_numsub(channel)[0][1]:
        await asyncio.sleep(0.01)
    for client in redis.client_list():
        if int(client["sub"]):
            redis.client_kill_filter(_id=client["id"])

    await put(writer, Delivery("d", result=1))

    assert await wait is not None
    await waiter.aclose()
    redis.close()


async def test_inbox_source_redis_unavailable_deadline_ends_wait(
    unreachable_redis: RedisConnection, conn_id: str
) -> None:
    waiter = Waiter(InboxSource(unreachable_redis, conn_id), interval=60)

    assert await waiter.wait("d", deadline=time.time() + 1) is None
    assert waiter.last_error is not None
    assert unreachable_redis.address in waiter.last_error
    await waiter.aclose()


async def test_inbox_same_failure_with_another_log_is_repetition(
    writer: InboxWriter,
) -> None:
    error = JobError("no speech found", type="ValueError")

    outcomes = [
        await put(writer, Delivery("d", status="failed", error=error, log=log))
        for log in ("10:00:01 started", "10:05:43 started", None)
    ]

    assert outcomes == [Outcome.STORED, Outcome.REPEATED, Outcome.REPEATED]


async def test_inbox_refusal_is_a_hint_and_an_update_until_a_delivery_arrives(
    writer: InboxWriter, redis_settings: RedisConnection, conn_id: str
) -> None:
    source = InboxSource(redis_settings, conn_id)
    hints: Any = source.hints()
    try:
        assert await anext(hints) is None
        await writer.note_refusal("d", "The receiver refused it:\nstatus is 'done'.")
        assert await anext(hints) == "d"
        await put(writer, Delivery("d", status="progress", text="half"))
        update = (await source.poll(["d"]))["d"]
        assert isinstance(update, StatusUpdate)
        assert update.is_progress
        assert "refused it: status is 'done' (at " in update.refusal

        await put(writer, Delivery("d", result=1))
        assert not isinstance((await source.poll(["d"]))["d"], StatusUpdate)
    finally:
        await hints.aclose()
        await source.aclose()
    with (
        InboxReader(redis_settings, conn_id) as reader,
        Redis(**dict(redis_settings.options)) as redis,
    ):
        reader.forget("d")
        assert not redis.exists(keys.refused(conn_id, "d"))
