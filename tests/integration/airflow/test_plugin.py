"""The receiver in Airflow's API server, with Airflow's own connections."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import sqlalchemy
import sqlalchemy.orm

from runqy_delivery import Delivery
from runqy_provider.errors import Misconfigured
from runqy_provider.inbox import callback_url
from runqy_provider.plugins import receiver
from runqy_provider.plugins.receiver import (
    MAX_UNKNOWN_CONN_IDS,
    MAX_UNKNOWN_LOOKUPS,
    ConnectionCache,
)
from runqy_provider.receiver.app import create_app
from runqy_provider.receiver.connections import LookupThrottled, LookupUnavailable
from runqy_sandbox.process.net import free_port

if TYPE_CHECKING:
    from tests.support.stack import Stack

pytestmark = pytest.mark.usefixtures("connect")


@pytest.fixture
def unreachable_database() -> str:
    """The URL of a database that does not run."""
    return f"postgresql+psycopg2://airflow@127.0.0.1:{free_port()}/airflow"


async def test_plugin_delivery_through_api_server_is_stored(stack: Stack) -> None:
    """The API server itself mounts the plugin's application here."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Airflow's own
        from airflow.api_fastapi.app import init_plugins
        from fastapi import FastAPI
        from starlette.applications import Starlette
        from starlette.routing import Mount

        app = FastAPI()
        init_plugins(app)
    mounts = [route for route in app.routes if isinstance(route, Mount)]
    [mounted] = [mount.app for mount in mounts if mount.path == "/runqy"]
    assert isinstance(mounted, Starlette)
    extra = stack.connections["runqy_default"]["extra"]
    url = callback_url.url(
        "http://airflow/runqy",
        extra["callback_secret"],
        "runqy_default",
        "through-airflow",
        int(time.time()) + 60,
    )
    body = Delivery("through-airflow", result=1).to_json()
    async with (
        mounted.router.lifespan_context(mounted),
        httpx.AsyncClient(transport=httpx.ASGITransport(app)) as client,
    ):
        taken = await client.post(url, content=body)
        forged = await client.post(url + "x", content=body)
        unknown = await client.post(url.replace("runqy_default", "no"), content=body)
        health = await client.get("http://airflow/runqy/health")

    assert (taken.status_code, taken.json()) == (200, {"outcome": "stored"})
    assert forged.status_code == unknown.status_code == 403
    assert forged.content == unknown.content
    assert health.json() == {"status": "ok"}


@pytest.fixture
def lookups(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of the connections that were looked up, in order."""
    ids: list[str] = []
    real = receiver.find_callback_connection

    def count(conn_id: str) -> Any:
        ids.append(conn_id)
        return real(conn_id)

    monkeypatch.setattr(receiver, "find_callback_connection", count)
    return ids


async def test_connection_cache_concurrent_requests_share_one_lookup(
    lookups: list[str],
) -> None:
    connections = ConnectionCache(ttl=60)

    found = await asyncio.gather(
        *(connections.find("runqy_default") for _ in range(50))
    )
    assert {connection.conn_id for connection in found if connection} == {
        "runqy_default"
    }
    assert await connections.find("no_such") is None
    assert await connections.find("no_such") is None
    assert lookups == ["runqy_default", "no_such"]


async def test_connection_cache_unknown_names_are_bounded(
    lookups: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiver, "NEGATIVE_TTL", 600.0)
    connections = ConnectionCache(ttl=60)
    names = [f"made_up_{n}" for n in range(MAX_UNKNOWN_CONN_IDS + 1)]
    for name in names:
        await connections.find(name)
    assert lookups == names

    await connections.find(names[-1])
    assert lookups == names, "the last names are remembered"
    await connections.find(names[0])
    assert lookups == [*names, names[0]], "the first one is not"


async def test_connection_cache_slow_unknown_names_do_not_delay_known_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gate, real = threading.Event(), receiver.find_callback_connection

    def slow(conn_id: str) -> Any:
        if conn_id.startswith("made_up"):
            gate.wait(30)
        return real(conn_id)

    monkeypatch.setattr(receiver, "find_callback_connection", slow)
    connections = ConnectionCache(ttl=0)  # nothing is cached
    assert await connections.find("runqy_default") is not None
    held = [
        asyncio.create_task(connections.find(f"made_up_{n}"))
        for n in range(MAX_UNKNOWN_LOOKUPS)
    ]
    await asyncio.sleep(0)
    try:
        with pytest.raises(LookupThrottled):
            await connections.find("made_up_too")
        assert await connections.find("runqy_default") is not None
    finally:
        gate.set()
        assert await asyncio.gather(*held) == [None] * MAX_UNKNOWN_LOOKUPS


async def test_plugin_database_unavailable_returns_503(
    monkeypatch: pytest.MonkeyPatch, unreachable_database: str, stack: Stack
) -> None:
    """Airflow reports "not found" then; the sender must get "try again" instead."""
    connections = ConnectionCache(ttl=0)
    known = await connections.find("runqy_default")
    assert known is not None
    monkeypatch.delenv("AIRFLOW_CONN_RUNQY_DEFAULT")
    with pytest.raises(LookupUnavailable, match="not found any more"):
        await connections.find("runqy_default")

    engine = sqlalchemy.create_engine(unreachable_database)
    monkeypatch.setattr(
        receiver, "create_session", lambda: sqlalchemy.orm.Session(engine)
    )
    fresh = ConnectionCache(ttl=60)
    with pytest.raises(LookupUnavailable, match="database cannot be asked"):
        await fresh.find("runqy_default")
    url = callback_url.url(
        "http://airflow",
        stack.connections["runqy_default"]["extra"]["callback_secret"],
        "runqy_default",
        "d",
        int(time.time()) + 60,
    )
    transport = httpx.ASGITransport(create_app(fresh.find))
    async with httpx.AsyncClient(transport=transport) as client:
        answer = await client.post(url, content=Delivery("d", result=1).to_json())
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")


async def test_connection_cache_connection_without_redis_is_refused(
    connect: Any,
) -> None:
    connect(redis_conn_id="no_such_redis")

    with pytest.raises(Misconfigured, match="no_such_redis"):
        await ConnectionCache(ttl=60).find("runqy_default")


async def test_connection_cache_expired_entry_is_looked_up_again(
    lookups: list[str],
) -> None:
    connections = ConnectionCache(ttl=0)

    assert await connections.find("runqy_default") is not None
    assert await connections.find("runqy_default") is not None
    assert lookups == ["runqy_default"] * 2


async def test_connection_cache_other_connection_type_is_not_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Otherwise a sender could find out the names of Airflow's connections."""
    monkeypatch.setenv("AIRFLOW_CONN_SOME_BUCKET", "aws://key:secret@")
    assert await ConnectionCache(ttl=60).find("some_bucket") is None


async def test_connection_cache_misconfigured_connection_is_cached(
    lookups: list[str], connect: Any
) -> None:
    connect(redis_conn_id="no_such_redis")
    connections = ConnectionCache(ttl=60)
    for _ in range(3):
        with pytest.raises(Misconfigured, match="no_such_redis"):
            await connections.find("runqy_default")
    assert lookups == ["runqy_default"]


async def test_connection_cache_refresh_is_rate_limited(
    lookups: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiver, "REFRESH_AFTER", 0.2)
    connections = ConnectionCache(ttl=60)
    await connections.find("runqy_default")
    await connections.find("runqy_default", refresh=True)
    assert len(lookups) == 1
    end = time.monotonic() + 10
    while len(lookups) == 1 and time.monotonic() < end:
        await connections.find("runqy_default", refresh=True)
        await asyncio.sleep(0.02)
    assert len(lookups) == 2


@pytest.mark.parametrize("seconds", ["0", "-1"])
async def test_connection_cache_unread_ttl_below_one_is_refused(
    monkeypatch: pytest.MonkeyPatch, seconds: str
) -> None:
    """The receiver would answer 200 and lose the delivery."""
    monkeypatch.setenv("AIRFLOW__RUNQY__UNREAD_TTL_SECONDS", seconds)
    with pytest.raises(Misconfigured, match="unread_ttl_seconds must be 1 or more"):
        await ConnectionCache(ttl=60).find("runqy_default")
