"""Clients are replaced when they expire; a failed reload does not end waits."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from airflow.sdk import BaseHook

from runqy_provider.airflow_compat import AirflowNotFoundException
from runqy_provider.caching import TtlCache
from runqy_provider.errors import Misconfigured
from runqy_provider.models import JobRef
from runqy_provider.settings import load_settings
from runqy_provider.sinks.object_store import base
from runqy_provider.sinks.object_store.object_sink import ObjectSink
from runqy_provider.sinks.registry import sink_from_uri
from runqy_provider.waiters.race import wait_any
from runqy_provider.waiters.waiter import close_waiters

if TYPE_CHECKING:
    from collections.abc import Callable

    from runqy_provider.sinks.object_store.base import ObjectStore
    from tests.support.stack import Stack

pytestmark = pytest.mark.usefixtures("connect")

CACHE = "runqy_provider.caching"


@pytest.fixture(params=["s3", "gs", "abfs"])
def store(request: pytest.FixtureRequest) -> ObjectStore:
    return store_of(f"{request.param}://results/clients")


def store_of(uri: str) -> ObjectStore:
    sink = sink_from_uri(uri)
    assert isinstance(sink, ObjectSink)
    return sink.store(load_settings("runqy_default"))


@pytest.fixture
def lookups(monkeypatch: pytest.MonkeyPatch) -> ConnectionLookups:
    return ConnectionLookups(monkeypatch)


class ConnectionLookups:
    """Counts lookups of Airflow connections, and lets them fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self.error: Exception | None = None
        known: Callable[[str], Any] = BaseHook.get_connection

        def get_connection(_: type, conn_id: str) -> Any:
            self.count += 1
            if self.error is not None:
                raise self.error
            return known(conn_id)

        monkeypatch.setattr(BaseHook, "get_connection", classmethod(get_connection))


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == CACHE]


class RecordingCache(TtlCache[Any]):
    """A cache that keeps the key that it was last asked for."""

    key = ""

    def get(self, key: str, load: Callable[[Any], Any]) -> Any:
        self.key = key
        return super().get(key, load)


@pytest.mark.parametrize(
    "error",
    [
        AirflowNotFoundException("not found"),
        RuntimeError("the supervisor is unavailable"),
    ],
)
def test_client_connection_not_found_keeps_old_client(
    error: Exception,
    store: ObjectStore,
    lookups: ConnectionLookups,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    first = RecordingCache(0.0, retry_after=60.0)
    monkeypatch.setattr(base, "CLIENTS", first)
    store.check("")
    lookups.error = error

    store.check("")
    (message,) = warnings_of(caplog)
    assert store.access_hint in message
    assert "will retry in 60 s" in message

    before = lookups.count
    store.check("")
    assert lookups.count == before, "it is not loaded again at each poll"

    (known,) = first.values()
    cache: TtlCache[Any] = TtlCache(0.0, retry_after=-1.0)
    cache.get(first.key, lambda _: known)
    monkeypatch.setattr(base, "CLIENTS", cache)
    store.check("")
    lookups.error = None
    store.check("")
    assert lookups.count == before + 2
    assert len(warnings_of(caplog)) == 2


def test_client_unknown_connection_is_an_error(lookups: ConnectionLookups) -> None:
    lookups.error = AirflowNotFoundException("not found")

    for uri in ("gs://results", "abfs://results"):
        with pytest.raises(AirflowNotFoundException):
            store_without_context(uri).check("")


def store_without_context(uri: str) -> ObjectStore:
    """Return a store whose connection is looked up when it is used."""
    sink: Any = sink_from_uri(uri)
    no_context: Any = None
    store: ObjectStore = sink.store(no_context)
    return store


def test_client_without_aws_connection_uses_machine_credentials(
    stack: Stack,
    lookups: ConnectionLookups,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(base, "CLIENTS", TtlCache(0.0, retry_after=60.0))
    monkeypatch.setenv("AWS_ENDPOINT_URL", stack.sandbox.s3_url)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "sandbox")
    store = store_of("s3://results")
    lookups.error = AirflowNotFoundException("not found")

    store.check("")
    before = lookups.count
    store.check("")

    assert lookups.count == before + 1, (
        "the client is loaded again, without a connection"
    )
    assert warnings_of(caplog) == []
    # A connection that the sink names must exist.
    with pytest.raises(Misconfigured, match="'missing' does not exist"):
        store_without_context("s3://results?aws_conn_id=missing").check("")


def test_client_connection_unavailable_waits_continue(
    store: ObjectStore,
    lookups: ConnectionLookups,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("AIRFLOW__RUNQY__OBJECT_SWEEP_SECONDS", "0.1")
    monkeypatch.setattr(base, "CLIENTS", TtlCache(0.0, retry_after=60.0))
    caplog.set_level(logging.WARNING, CACHE)
    sink = sink_from_uri(f"{store.url}/clients")
    targets = sink.bind(load_settings("runqy_default")).targets(JobRef("d"))
    bucket = [target for target in targets if target.is_required]
    store.check("")
    lookups.error = AirflowNotFoundException("not found")

    async def scenario() -> Any:
        wait = asyncio.ensure_future(wait_any(bucket, deadline=time.time() + 20))
        end = time.monotonic() + 10
        while not warnings_of(caplog) and time.monotonic() < end:
            await asyncio.sleep(0.02)
        put = await asyncio.to_thread(store.sign_put, "clients/d", 60)
        assert put is not None
        async with httpx.AsyncClient() as client:
            response = await client.put(put.url, content=b"1", headers=put.headers)
            response.raise_for_status()
        try:
            return await wait
        finally:
            await close_waiters()

    arrival = asyncio.run(scenario())
    assert arrival.result_uri == f"{store.url}/clients/d"
    assert warnings_of(caplog)
