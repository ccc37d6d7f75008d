"""The receiver as Airflow's API server mounts it, with Airflow's own connections."""

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
from runqy_provider.inbox import callback_url as capability
from runqy_provider.plugins import receiver
from runqy_provider.plugins.receiver import (
    LOOKS_FOR_STRANGERS,
    MOST_STRANGERS,
    ConnectionDoors,
)
from runqy_provider.receiver.app import create_app
from runqy_provider.receiver.connections import DoorAway, DoorsBusy
from runqy_sandbox.process.net import free_port

if TYPE_CHECKING:
    from tests.support.stack import World

pytestmark = pytest.mark.usefixtures("connect")


@pytest.fixture
def nowhere_database() -> str:
    """A database that is away."""
    return f"postgresql+psycopg2://airflow@127.0.0.1:{free_port()}/airflow"


async def test_a_delivery_through_airflows_api_server(world: World) -> None:
    """Through the application that the API server really makes."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Airflow's own
        from airflow.api_fastapi.app import init_plugins
        from fastapi import FastAPI

        app = FastAPI()
        init_plugins(app)
    [mount] = [route for route in app.routes if getattr(route, "path", "") == "/runqy"]
    extra = world.connections["runqy_default"]["extra"]
    url = capability.url(
        "http://airflow/runqy",
        extra["callback_secret"],
        "runqy_default",
        "through-airflow",
        int(time.time()) + 60,
    )
    body = Delivery("through-airflow", result=1).to_json()
    async with (
        mount.app.router.lifespan_context(mount.app),
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
def looked_up(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The connections that were looked up, one after another."""
    ids: list[str] = []
    real = receiver._door

    def count(conn_id: str) -> Any:
        ids.append(conn_id)
        return real(conn_id)

    monkeypatch.setattr(receiver, "_door", count)
    return ids


async def test_a_connection_is_looked_up_once_for_many(looked_up: list[str]) -> None:
    doors = ConnectionDoors(ttl=60)

    found = await asyncio.gather(*(doors.find("runqy_default") for _ in range(50)))
    assert {door.conn_id for door in found if door} == {"runqy_default"}
    assert await doors.find("no_such") is None
    assert await doors.find("no_such") is None
    assert looked_up == ["runqy_default", "no_such"]


async def test_made_up_names_do_not_fill_the_memory() -> None:
    doors = ConnectionDoors(ttl=60)
    for n in range(MOST_STRANGERS + 20):
        await doors.find(f"made_up_{n}")

    assert len(doors._strangers) == MOST_STRANGERS


async def test_strangers_hold_up_no_door_that_is_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gate, real = threading.Event(), receiver._door

    def slow(conn_id: str) -> Any:
        if conn_id.startswith("made_up"):
            gate.wait(30)
        return real(conn_id)

    monkeypatch.setattr(receiver, "_door", slow)
    doors = ConnectionDoors(ttl=0)  # looked for again each time
    assert await doors.find("runqy_default") is not None
    held = [
        asyncio.create_task(doors.find(f"made_up_{n}"))
        for n in range(LOOKS_FOR_STRANGERS)
    ]
    await asyncio.sleep(0)
    try:
        with pytest.raises(DoorsBusy):
            await doors.find("made_up_too")
        assert await doors.find("runqy_default") is not None
    finally:
        gate.set()
        assert await asyncio.gather(*held) == [None] * LOOKS_FOR_STRANGERS


async def test_while_airflows_database_is_away_no_delivery_is_refused_for_good(
    monkeypatch: pytest.MonkeyPatch, nowhere_database: str, world: World
) -> None:
    """Airflow says "not found" then: the sender must hear "come again"."""
    doors = ConnectionDoors(ttl=0)
    known = await doors.find("runqy_default")
    assert known is not None
    monkeypatch.delenv("AIRFLOW_CONN_RUNQY_DEFAULT")
    with pytest.raises(DoorAway, match="not found any more"):
        await doors.find("runqy_default")

    engine = sqlalchemy.create_engine(nowhere_database)
    monkeypatch.setattr(
        receiver, "create_session", lambda: sqlalchemy.orm.Session(engine)
    )
    fresh = ConnectionDoors(ttl=60)
    with pytest.raises(DoorAway, match="database cannot be asked"):
        await fresh.find("runqy_default")
    url = capability.url(
        "http://airflow",
        world.connections["runqy_default"]["extra"]["callback_secret"],
        "runqy_default",
        "d",
        int(time.time()) + 60,
    )
    transport = httpx.ASGITransport(create_app(fresh.find))
    async with httpx.AsyncClient(transport=transport) as client:
        answer = await client.post(url, content=Delivery("d", result=1).to_json())
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")


async def test_a_connection_without_its_redis_is_no_door(connect: Any) -> None:
    connect(redis_conn_id="no_such_redis")

    with pytest.raises(Misconfigured, match="no_such_redis"):
        await ConnectionDoors(ttl=60).find("runqy_default")


def test_a_changed_connection_is_noticed_after_its_time() -> None:
    doors = ConnectionDoors(ttl=0)

    assert asyncio.run(doors.find("runqy_default")) is not None


async def test_a_connection_of_another_kind_is_no_door(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Or a stranger could tell which names Airflow's connections have."""
    monkeypatch.setenv("AIRFLOW_CONN_SOME_BUCKET", "aws://key:secret@")
    assert await ConnectionDoors(ttl=60).find("some_bucket") is None


async def test_a_connection_that_is_set_up_wrongly_is_looked_up_once_in_a_while(
    looked_up: list[str], connect: Any
) -> None:
    connect(redis_conn_id="no_such_redis")
    doors = ConnectionDoors(ttl=60)
    for _ in range(3):
        with pytest.raises(Misconfigured, match="no_such_redis"):
            await doors.find("runqy_default")
    assert looked_up == ["runqy_default"]


async def test_a_door_that_did_not_open_is_looked_for_again_but_not_each_time(
    looked_up: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiver, "LOOK_ANEW_AFTER", 0.2)
    doors = ConnectionDoors(ttl=60)
    await doors.find("runqy_default")
    await doors.find("runqy_default", anew=True)
    assert len(looked_up) == 1
    end = time.monotonic() + 10
    while len(looked_up) == 1 and time.monotonic() < end:
        await doors.find("runqy_default", anew=True)
        await asyncio.sleep(0.02)
    assert len(looked_up) == 2


@pytest.mark.parametrize("seconds", ["0", "-1"])
async def test_an_inbox_that_keeps_nothing_is_no_door(
    monkeypatch: pytest.MonkeyPatch, seconds: str
) -> None:
    """It would answer 200, and lose the delivery."""
    monkeypatch.setenv("AIRFLOW__RUNQY__UNREAD_TTL_SECONDS", seconds)
    with pytest.raises(Misconfigured, match="unread_ttl_seconds must be 1 or more"):
        await ConnectionDoors(ttl=60).find("runqy_default")
