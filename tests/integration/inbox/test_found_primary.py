"""The inbox in a Redis Cluster, and in a Redis behind Sentinels."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import httpx
import pytest
from redis.crc import key_slot

from runqy_delivery import Delivery
from runqy_provider.client.job_status import RedisJobStatusReader
from runqy_provider.client.models import JobOptions
from runqy_provider.client.redis_transport import NewJob, RedisTransport
from runqy_provider.errors import Misconfigured
from runqy_provider.inbox import callback_url, keys
from runqy_provider.inbox.callback_url import new_channel_delivery_id
from runqy_provider.inbox.channel_reader import ChannelReader
from runqy_provider.inbox.reader import InboxReader, InboxSource, write_and_read
from runqy_provider.inbox.records import read_recent
from runqy_provider.inbox.writer import InboxWriter, Outcome, digest
from runqy_provider.jobs import launch
from runqy_provider.jobs.attempt_store import RedisStore
from runqy_provider.jobs.launch import Attempt
from runqy_provider.models import JobRef
from runqy_provider.receiver.app import create_app
from runqy_provider.receiver.connections import CallbackConnection
from runqy_provider.redis_client import async_client, client
from runqy_provider.waiters.source import Arrival, StatusUpdate
from runqy_provider.waiters.waiter import Waiter
from tests.integration.inbox.conftest import redis_connection

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from devtools.servers.redis_cluster import RedisCluster
    from runqy_provider.redis_connection import RedisConnection

#: Seconds for a hint or a wait; a busy machine is slow.
LIMIT = 60.0

SECRET = "a secret of the receiver"


@asynccontextmanager
async def opened(redis: RedisConnection, conn_id: str) -> AsyncIterator[InboxWriter]:
    node = async_client(redis.for_namespace(conn_id), most_connections=4)
    async with node:
        yield InboxWriter(node, redis, conn_id, ttl=100)


async def put(writer: InboxWriter, delivery: Delivery) -> Outcome:
    return await writer.put(
        delivery, delivery.to_json(), digest(delivery), int(time.time()) + 100
    )


async def test_inbox_found_primary_delivery_is_stored_found_and_read(
    found_redis: RedisConnection, conn_id: str
) -> None:
    source = InboxSource(found_redis, conn_id)
    async with opened(found_redis, conn_id) as writer:
        outcomes = [
            await put(writer, Delivery("d", result=result)) for result in (1, 1, 2)
        ]
    found = await source.poll(["d", "absent"])
    await source.aclose()
    with InboxReader(found_redis, conn_id) as reader:
        stored = reader.read("d")
        reader.forget("d")

    assert outcomes == [Outcome.STORED, Outcome.REPEATED, Outcome.CONFLICT]
    assert list(found) == ["d"]
    assert isinstance(found["d"], Arrival)
    assert found["d"].result_uri == f"inbox://{conn_id}/d"
    assert stored.delivery.result == 1


async def test_inbox_found_primary_hint_ends_wait_at_once(
    found_redis: RedisConnection, conn_id: str
) -> None:
    """Polls are too far apart to end this wait."""
    waiter = Waiter(InboxSource(found_redis, conn_id), interval=10 * LIMIT)
    wait = asyncio.create_task(waiter.wait("d", deadline=time.time() + LIMIT))
    await asyncio.sleep(0)
    async with opened(found_redis, conn_id) as writer:
        await put(writer, Delivery("d", result=1))
    arrival = await wait
    await waiter.aclose()

    assert arrival is not None
    assert arrival.status == "completed"


async def test_inbox_found_primary_each_hint_names_its_delivery(
    found_redis: RedisConnection, conn_id: str
) -> None:
    source = InboxSource(found_redis, conn_id)
    hints = source.hints()
    assert await asyncio.wait_for(anext(hints), LIMIT) is None
    async with opened(found_redis, conn_id) as writer:
        await put(writer, Delivery("p", status="progress", fraction=0.5))
        await put(writer, Delivery("d", result=1))

    assert await asyncio.wait_for(anext(hints), LIMIT) == "p"
    assert await asyncio.wait_for(anext(hints), LIMIT) == "d"
    await hints.aclose()  # type: ignore[attr-defined] # a generator
    await source.aclose()


async def test_inbox_found_primary_progress_is_found(
    found_redis: RedisConnection, conn_id: str
) -> None:
    source = InboxSource(found_redis, conn_id)
    async with opened(found_redis, conn_id) as writer:
        note = Delivery("d", status="progress", fraction=0.5, text="half")
        assert await put(writer, note) is Outcome.NOTED
    found = (await source.poll(["d"]))["d"]
    await source.aclose()

    assert isinstance(found, StatusUpdate)
    assert found.message == "50% half"


async def test_inbox_found_primary_channel_event_is_read_once(
    found_redis: RedisConnection, conn_id: str
) -> None:
    delivery_id = new_channel_delivery_id("c")
    async with opened(found_redis, conn_id) as writer:
        await put(writer, Delivery(delivery_id, result=1))
    readers = [ChannelReader(found_redis, conn_id, "c", "g") for _ in range(2)]
    [(entry_id, event)] = await readers[0].read()
    await readers[0].acknowledge([entry_id])
    left = await readers[1]._open()
    for reader in readers:
        await reader.aclose()

    assert event["delivery_id"] == delivery_id
    assert left == []


def test_attempt_store_found_primary_record_is_kept_and_abandoned(
    found_redis: RedisConnection, conn_id: str
) -> None:
    key = keys.attempt(found_redis.in_keys(conn_id), "name")
    store = RedisStore(found_redis.for_namespace(conn_id), key)
    job = JobRef("runqy_default", "s3://bucket", "d")
    attempt = Attempt(job, "digest", max_tries=1, expires=time.time() + 60)
    assert launch.recorded(store) == []
    launch.update(store, attempt)
    launch.abandon(store)

    [previous] = launch.recorded(store)
    assert previous.job == job
    assert previous.is_abandoned


def test_inbox_check_found_primary_passes(
    found_redis: RedisConnection, conn_id: str
) -> None:
    write_and_read(found_redis, conn_id)


async def test_receiver_found_primary_stores_and_records_rejections(
    found_redis: RedisConnection, conn_id: str
) -> None:
    connection = CallbackConnection(conn_id, found_redis, (SECRET,))

    async def lookup(
        _conn_id: str, *, refresh: bool = False
    ) -> CallbackConnection | None:
        return connection

    url = callback_url.url("http://r", SECRET, conn_id, "d", int(time.time()) + 60)
    app = create_app(lookup)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app)) as http,
    ):
        body = Delivery("d", result=1).to_json()
        stored = await http.post(url, content=body)
        rejected = await http.post(url, content=b"no JSON")
        bad_url = await http.post(f"{url}x", content=body)
    async with async_client(
        found_redis.for_namespace(conn_id), most_connections=1
    ) as node:
        recent = await read_recent(node, found_redis.in_keys(conn_id), 10)

    statuses = [answer.status_code for answer in (stored, rejected, bad_url)]
    assert statuses == [200, 400, 403]
    assert [record.delivery_id for record in recent.accepted] == ["d"]
    assert len(recent.rejected) == 2


def test_cluster_namespace_has_one_slot_and_one_node(
    cluster: RedisCluster, cluster_settings: RedisConnection, conn_id: str
) -> None:
    tag = cluster_settings.in_keys(conn_id)
    names = [keys.delivery(tag, "d"), keys.arrivals(tag), keys.channel(tag, "c")]

    assert len({key_slot(name.encode()) for name in names}) == 1
    with client(cluster_settings.for_namespace(conn_id)) as redis:
        redis.set(keys.delivery(tag, "d"), "1", ex=60)
        port = redis.connection_pool.get_connection().port
    assert port == cluster.primary_of(tag).port


async def test_cluster_slot_moved_open_connections_and_hints_follow(
    cluster: RedisCluster, cluster_settings: RedisConnection, conn_id: str
) -> None:
    """Its node goes on: it refuses commands, and ends subscriptions."""
    waiter = Waiter(InboxSource(cluster_settings, conn_id), interval=1)
    async with opened(cluster_settings, conn_id) as writer:
        await put(writer, Delivery("before", result=1))
        found = await waiter.wait("before", deadline=time.time() + LIMIT)
        wait = asyncio.create_task(waiter.wait("after", deadline=time.time() + LIMIT))
        tag = cluster_settings.in_keys(conn_id)
        target = await asyncio.to_thread(cluster.move_slot, tag)
        await put(writer, Delivery("after", result=2))
    arrival = await wait
    await waiter.aclose()

    assert found is not None
    assert arrival is not None
    with target.connect() as redis:
        for name in ("before", "after"):
            assert redis.exists(keys.delivery(tag, name))


def test_inbox_check_cluster_that_is_not_declared_says_what_to_add(
    cluster: RedisCluster, cluster_settings: RedisConnection, conn_id: str
) -> None:
    node = next(n for n in cluster.nodes if n is not cluster.primary_of(conn_id))
    settings = redis_connection(host="127.0.0.1", port=node.port)
    with pytest.raises(Misconfigured, match='Add "cluster": true'):
        write_and_read(settings, conn_id)


def test_client_cluster_without_namespace_is_refused(
    cluster_settings: RedisConnection,
) -> None:
    for make in (client, RedisTransport):
        with pytest.raises(Misconfigured, match="only the inbox can use"):
            make(cluster_settings)


async def test_runqys_redis_behind_sentinels_takes_jobs_and_says_their_status(
    sentinel_settings: RedisConnection, conn_id: str
) -> None:
    transport = RedisTransport(sentinel_settings)
    enqueued = transport.enqueue("q.default", [NewJob(conn_id, {})], JobOptions())
    transport.close()
    reader = RedisJobStatusReader(sentinel_settings)
    job = ("q.default", conn_id)
    seen = await reader.poll([job])
    await reader.aclose()

    assert enqueued == [True]
    status = seen[job]
    assert status is not None
    assert status.state == "pending"
