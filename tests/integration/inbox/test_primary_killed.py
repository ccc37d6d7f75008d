"""A primary is killed, or hands over, while deliveries come in and tasks wait."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Protocol

import httpx
import pytest

from runqy_delivery import Delivery
from runqy_provider.inbox import callback_url, writer
from runqy_provider.inbox.reader import InboxReader, InboxSource
from runqy_provider.receiver.app import create_app
from runqy_provider.receiver.connections import CallbackConnection
from runqy_provider.waiters.waiter import Waiter

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from devtools.servers.redis_cluster import RedisCluster
    from devtools.servers.redis_node import RedisNode
    from devtools.servers.redis_sentinel import SentinelGroup
    from runqy_provider.redis_connection import RedisConnection

SECRET = "a secret of the receiver"

#: Deliveries, and how many of them are accepted before the primary goes away.
DELIVERIES, BEFORE = 120, 40

#: Seconds for all of it; a failover takes some ten of them.
LIMIT = 240.0

#: Seconds between two tries of a delivery that was not accepted, as a sender has them.
PAUSE = 0.2


@pytest.fixture(autouse=True)
def short_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Go on without a replica sooner, but not before the failover is over."""
    monkeypatch.setattr(writer, "LOST_FOR", 20.0)


class Servers(Protocol):
    """Servers of which one is the primary of a namespace."""

    settings: RedisConnection

    def primary(self) -> RedisNode: ...

    def hand_over(self) -> None: ...

    def wait_for_failover(self, old: RedisNode) -> None: ...

    def wait_until_complete(self) -> None: ...


class OfCluster:
    def __init__(
        self, cluster: RedisCluster, settings: RedisConnection, conn_id: str
    ) -> None:
        self.settings, self._cluster = settings, cluster
        self._tag = settings.in_keys(conn_id)
        self.wait_until_complete = cluster.wait_until_complete

    def primary(self) -> RedisNode:
        return self._cluster.primary_of(self._tag)

    def hand_over(self) -> None:
        self._cluster.replica_of(self.primary()).ask("CLUSTER", "FAILOVER")

    def wait_for_failover(self, old: RedisNode) -> None:
        self._cluster.wait_for_failover(old, self._tag)


class OfSentinels:
    def __init__(self, group: SentinelGroup, settings: RedisConnection) -> None:
        self.settings, self._group = settings, group
        self.primary = group.primary
        self.wait_until_complete = group.wait_until_complete

    def hand_over(self) -> None:
        self._group.hand_over()

    def wait_for_failover(self, old: RedisNode) -> None:
        self._group.wait_for_failover(old)


@pytest.fixture(params=["cluster", "sentinels"])
def servers(request: pytest.FixtureRequest, conn_id: str) -> Iterator[Servers]:
    """All nodes run before a test and after it."""
    get = request.getfixturevalue
    found: Servers
    if request.param == "cluster":
        found = OfCluster(get("cluster"), get("cluster_settings"), conn_id)
    else:
        found = OfSentinels(get("sentinels"), get("sentinel_settings"))
    found.wait_until_complete()
    yield found
    found.wait_until_complete()


class Senders:
    """Deliver as the helper of task code does: again, until it is accepted."""

    def __init__(self, http: httpx.AsyncClient, conn_id: str) -> None:
        self._http, self._conn_id = http, conn_id
        self.accepted: list[str] = []
        self.refused = 0
        self._enough = asyncio.Event()

    async def deliver(self, delivery_id: str) -> None:
        expires = int(time.time() + LIMIT)
        url = callback_url.url("http://r", SECRET, self._conn_id, delivery_id, expires)
        body = Delivery(delivery_id, result={"id": delivery_id}).to_json()
        while True:
            answer = await self._http.post(url, content=body)
            if answer.status_code == httpx.codes.OK:
                break
            assert answer.status_code in (429, 503), answer.text
            self.refused += 1
            await asyncio.sleep(PAUSE)
        self.accepted.append(delivery_id)
        if len(self.accepted) >= BEFORE:
            self._enough.set()

    async def wait_for_some(self) -> None:
        await asyncio.wait_for(self._enough.wait(), LIMIT)


async def _deliver_while(
    servers: Servers, conn_id: str, cause: Callable[[Senders], Awaitable[None]]
) -> Senders:
    """Deliver to waiting tasks, cause a fault meanwhile, and check all of them."""
    connection = CallbackConnection(conn_id, servers.settings, (SECRET,))

    async def lookup(
        _conn_id: str, *, refresh: bool = False
    ) -> CallbackConnection | None:
        return connection

    ids = [f"d-{number}" for number in range(DELIVERIES)]
    waiter = Waiter(InboxSource(servers.settings, conn_id), interval=1)
    deadline = time.time() + LIMIT
    waits = [asyncio.create_task(waiter.wait(each, deadline=deadline)) for each in ids]
    app = create_app(lookup)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app)) as http,
    ):
        senders = Senders(http, conn_id)
        turns = asyncio.Semaphore(10)

        async def send(delivery_id: str) -> None:
            async with turns:
                await senders.deliver(delivery_id)

        sending = asyncio.gather(*map(send, ids))
        await senders.wait_for_some()
        await cause(senders)
        await asyncio.wait_for(sending, LIMIT)
    arrivals = await asyncio.wait_for(asyncio.gather(*waits), LIMIT)
    await waiter.aclose()

    assert all(arrival is not None for arrival in arrivals)
    with InboxReader(servers.settings, conn_id) as reader:
        for each in senders.accepted:
            assert reader.read(each).delivery.result == {"id": each}
    assert sorted(senders.accepted) == sorted(ids)
    return senders


@pytest.mark.timeout(600)  # two failovers, on a busy machine
async def test_inbox_primary_killed_no_accepted_delivery_is_lost(
    servers: Servers, conn_id: str
) -> None:
    killed: list[RedisNode] = []

    async def kill(_senders: Senders) -> None:
        killed.append(servers.primary())
        killed[0].child.kill()
        await asyncio.to_thread(servers.wait_for_failover, killed[0])

    try:
        await _deliver_while(servers, conn_id, kill)
    finally:
        for node in killed:
            node.child.start()


@pytest.mark.timeout(600)  # as above
async def test_inbox_primary_hands_over_open_connections_lead_to_the_new_one(
    servers: Servers, conn_id: str
) -> None:
    """The old primary goes on as a replica, to which connections stay open."""

    async def hand_over(_senders: Senders) -> None:
        old = servers.primary()
        servers.hand_over()
        await asyncio.to_thread(servers.wait_for_failover, old)

    await _deliver_while(servers, conn_id, hand_over)
