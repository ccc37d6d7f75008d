"""Records of deliveries: bounded, and at a cost that no sender can raise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from redis import Redis

from runqy_delivery import Delivery
from runqy_provider.inbox import keys
from runqy_provider.inbox.records import (
    MOST_RECORDS,
    DeliveryRecord,
    RejectionRecorder,
    read_recent,
)
from runqy_provider.inbox.writer import InboxWriter, Outcome, digest
from runqy_provider.redis_client import async_client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from redis.asyncio import Redis as AsyncRedis

    from runqy_provider.redis_connection import RedisConnection

TTL = 100


@pytest.fixture
async def redis(redis_settings: RedisConnection) -> AsyncIterator[AsyncRedis]:
    """A client of the inbox's Redis."""
    client = async_client(redis_settings, most_connections=4)
    yield client
    await client.aclose()


@pytest.fixture
def recorder(redis: AsyncRedis) -> RejectionRecorder:
    """A recorder of rejected deliveries."""
    return RejectionRecorder(lambda _settings: redis, TTL)


async def test_recorder_flood_becomes_one_record_with_a_count(
    recorder: RejectionRecorder,
    redis: AsyncRedis,
    redis_settings: RedisConnection,
    conn_id: str,
) -> None:
    for n in range(10_000):
        recorder.add(redis_settings, keys.bad_url(conn_id), f"d{n}", "bad token")
    for _ in range(3):
        key = keys.rejected(conn_id)
        recorder.add(redis_settings, key, "e", "not a delivery", "no\nJSON")
    await recorder.aclose()

    rejected = (await read_recent(redis, conn_id, 50)).rejected

    found = {one.outcome: (one.delivery_id, one.count) for one in rejected}
    assert found == {
        "bad token": ("d9999", 10_000),
        "not a delivery: no JSON": ("e", 3),
    }


async def test_recorder_flood_of_bad_urls_leaves_other_rejections(
    recorder: RejectionRecorder,
    redis: AsyncRedis,
    redis_settings: RedisConnection,
    conn_id: str,
) -> None:
    recorder.add(redis_settings, keys.rejected(conn_id), "real", "too large")
    for n in range(MOST_RECORDS + 20):
        recorder.add(redis_settings, keys.bad_url(conn_id), "d", f"reason {n}")
    await recorder.aclose()

    kept = await redis.llen(keys.bad_url(conn_id))
    recent = await read_recent(redis, conn_id, MOST_RECORDS + 1)

    assert kept == MOST_RECORDS
    assert "real" in {one.delivery_id for one in recent.rejected}
    assert 0 < await redis.ttl(keys.bad_url(conn_id)) <= TTL


async def test_recorder_redis_away_drops_records(
    unreachable_redis: RedisConnection,
    conn_id: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    client = async_client(unreachable_redis, most_connections=1)
    recorder = RejectionRecorder(lambda _settings: client, TTL)
    recorder.add(unreachable_redis, keys.rejected(conn_id), "d", "too large")

    await recorder.aclose()

    assert "Could not record rejected deliveries" in caplog.text
    await client.aclose()


async def test_writer_records_are_capped_and_expire(
    redis: AsyncRedis, redis_settings: RedisConnection, conn_id: str
) -> None:
    writer = InboxWriter(redis, redis_settings, conn_id, TTL)
    for n in range(MOST_RECORDS + 5):
        delivery = Delivery(f"d{n}", result=n)
        await writer.put(delivery, delivery.to_json(), digest(delivery))

    recent = await read_recent(redis, conn_id, MOST_RECORDS + 5)

    assert len(recent.accepted) == MOST_RECORDS
    assert recent.accepted[0].delivery_id == f"d{MOST_RECORDS + 4}"
    assert 0 < await redis.ttl(keys.accepted(conn_id)) <= TTL


async def test_writer_redis_that_denies_records_stores_deliveries(
    redis_settings: RedisConnection, conn_id: str
) -> None:
    """As for a Redis user whose rules were made for an earlier version."""
    with Redis(**dict(redis_settings.options)) as admin:
        rules = ["reset", "on", ">secret", "allkeys", "allchannels", "+@all", "-lpush"]
        admin.execute_command("ACL", "SETUSER", conn_id, *rules)
        limited = async_client(redis_settings, most_connections=1)
        limited.connection_pool.connection_kwargs.update(
            username=conn_id, password="secret"
        )
        try:
            delivery = Delivery("d", result=1)
            writer = InboxWriter(limited, redis_settings, conn_id, TTL)
            outcome = await writer.put(delivery, delivery.to_json(), digest(delivery))
        finally:
            await limited.aclose()
            admin.execute_command("ACL", "DELUSER", conn_id)

        assert outcome is Outcome.STORED
        assert admin.exists(keys.delivery(conn_id, "d"))
        assert not admin.exists(keys.accepted(conn_id))


def test_record_of_a_newer_version_is_read() -> None:
    entry = b'stored\n{"at": 1.5, "delivery_id": "d", "new_field": 1}'

    assert DeliveryRecord.from_entry(entry) == DeliveryRecord(
        1.5, "d", outcome="stored"
    )
