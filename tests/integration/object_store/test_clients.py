"""Clients are made anew now and then; waits outlive a connection that is away then."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowNotFoundException

from runqy_provider.context import get_access
from runqy_provider.errors import Misconfigured
from runqy_provider.models import Ticket
from runqy_provider.sinks.object_store import clients
from runqy_provider.sinks.object_store.sink import ObjectSink
from runqy_provider.sinks.registry import parse_sink
from runqy_provider.waiters.registry import close_waiters
from runqy_provider.waiters.wait_any import wait_for_arrival

if TYPE_CHECKING:
    from collections.abc import Callable

    from runqy_provider.sinks.object_store.base import ObjectStore
    from tests.support.stack import World

pytestmark = pytest.mark.usefixtures("connect")

CLIENTS = "runqy_provider.sinks.object_store.clients"


@pytest.fixture(params=["s3", "gs", "abfs"])
def store(request: pytest.FixtureRequest) -> ObjectStore:
    return store_of(f"{request.param}://results/clients")


def store_of(uri: str) -> ObjectStore:
    sink = parse_sink(uri)
    assert isinstance(sink, ObjectSink)
    return sink.store(get_access("runqy_default"))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    return Asked(monkeypatch)


class Asked:
    """Counts how often Airflow is asked for a connection; lets it be away."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.times, self.error = 0, None
        known: Callable[[str], Any] = BaseHook.get_connection

        def get_connection(_: type, conn_id: str) -> Any:
            self.times += 1
            if self.error is not None:
                raise self.error
            return known(conn_id)

        monkeypatch.setattr(BaseHook, "get_connection", classmethod(get_connection))

    error: Exception | None


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == CLIENTS]


@pytest.mark.parametrize(
    "error", [AirflowNotFoundException("not found"), RuntimeError("supervisor away")]
)
def test_a_client_stays_while_its_connection_cannot_be_fetched(
    error: Exception,
    store: ObjectStore,
    asked: Asked,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(clients, "CLIENT_TTL", 0.0)
    store.check("")
    asked.error = error

    store.check("")
    (words,) = warnings_of(caplog)
    assert store.access_hint in words
    assert "the next try is in 60 s" in words

    before = asked.times
    store.check("")
    assert asked.times == before, "not at each look"

    monkeypatch.setattr(clients, "TRY_AGAIN", -1.0)
    clients._clients.update({k: (0.0, c) for k, (_, c) in clients._clients.items()})
    store.check("")
    asked.error = None
    store.check("")
    assert asked.times == before + 2
    assert len(warnings_of(caplog)) == 2


def test_a_connection_that_never_was_is_an_error_at_once(asked: Asked) -> None:
    asked.error = AirflowNotFoundException("not found")

    for uri in ("gs://results", "abfs://results"):
        with pytest.raises(AirflowNotFoundException):
            store_of_nothing(uri).check("")


def store_of_nothing(uri: str) -> ObjectStore:
    """Return a store though Airflow has no connections any more."""
    sink: Any = parse_sink(uri)
    nothing: Any = None
    store: ObjectStore = sink.store(nothing)
    return store


def test_without_an_aws_connection_the_machines_own_credentials_stay(
    world: World,
    asked: Asked,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(clients, "CLIENT_TTL", 0.0)
    monkeypatch.setenv("AWS_ENDPOINT_URL", world.sandbox.s3_url)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "sandbox")
    store = store_of("s3://results")
    asked.error = AirflowNotFoundException("not found")

    store.check("")
    once = asked.times
    store.check("")

    assert asked.times == once + 1, "made anew, without a connection as before"
    assert warnings_of(caplog) == []
    # One that was named was meant: nothing is to go elsewhere in its place.
    with pytest.raises(Misconfigured, match="'nobody' does not exist"):
        store_of_nothing("s3://results?aws_conn_id=nobody").check("")


def test_waits_outlive_a_connection_that_is_away(
    store: ObjectStore,
    asked: Asked,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("AIRFLOW__RUNQY__OBJECT_SWEEP_SECONDS", "0.1")
    monkeypatch.setattr(clients, "CLIENT_TTL", 0.0)
    caplog.set_level(logging.WARNING, CLIENTS)
    sink = parse_sink(f"{store.url}/clients")
    places = sink.places(get_access("runqy_default"), Ticket("d"))
    bucket = [place for place in places if place.is_essential]
    store.check("")
    asked.error = AirflowNotFoundException("not found")

    async def scenario() -> Any:
        wait = asyncio.ensure_future(
            wait_for_arrival(bucket, deadline=time.time() + 20)
        )
        end = time.monotonic() + 10
        while not warnings_of(caplog) and time.monotonic() < end:
            await asyncio.sleep(0.02)
        put = await asyncio.to_thread(store.sign_put, "clients/d", 60)
        assert put is not None
        async with httpx.AsyncClient() as client:
            answer = await client.put(put.url, content=b"1", headers=put.headers)
            answer.raise_for_status()
        try:
            return await wait
        finally:
            await close_waiters()

    arrival = asyncio.run(scenario())
    assert arrival.where == f"{store.url}/clients/d"
    assert warnings_of(caplog)
