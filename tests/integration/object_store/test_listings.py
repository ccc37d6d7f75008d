"""A poll of a store is one complete listing for all waits in a folder."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from runqy_provider.context import load_context
from runqy_provider.models import JobRef
from runqy_provider.sinks.registry import sink_from_uri
from runqy_provider.waiters.registry import close_waiters
from runqy_provider.waiters.wait_any import wait_any
from tests.integration.object_store.helpers import WITHOUT_WEBHOOK, store_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from runqy_provider.sinks.object_store.base import ObjectStore
    from tests.integration.object_store.conftest import Kind

pytestmark = pytest.mark.usefixtures("connect", "no_settling")


def put_objects(kind: Kind, store: ObjectStore, names: Sequence[str]) -> None:
    with httpx.Client(timeout=30) as client:

        def put_object(name: str) -> None:
            put = store.sign_put(name, 60)
            if put is None:
                Path(kind.uri.removeprefix("file://"), name).write_bytes(b"1")
            else:
                response = client.put(put.url, content=b"1", headers=put.headers)
                response.raise_for_status()

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(put_object, names))


def test_object_store_listing_with_many_pages_is_complete(
    kind: Kind, connect: Callable[..., Any]
) -> None:
    """A page has 1000 names in S3 and Google's storage, 5000 in Azure's."""
    names = [f"many/{n:04}" for n in range(1001)]
    store = store_of(kind.uri)
    put_objects(kind, store, names)

    listing = store.list_folder("many/")
    assert set(listing.keys) == set(names)
    assert listing.pages == (1 if kind.scheme == "file" else 2)

    connect(without=WITHOUT_WEBHOOK)
    sink = sink_from_uri(f"{kind.uri}/many")
    context = load_context("runqy_default")

    async def scenario() -> Any:
        waits = [
            asyncio.ensure_future(
                wait_any(
                    sink.bind(context).targets(JobRef(delivery_id)),
                    deadline=time.time() + 20,
                )
            )
            for delivery_id in ("1000", "never-1", "never-2")
        ]
        try:
            return await waits[0]
        finally:
            for wait in waits:
                wait.cancel()
            await close_waiters()

    arrival = asyncio.run(scenario())
    assert arrival.result_uri == f"{kind.uri}/many/1000"


class RecordingStore:
    """Records which methods of a store are called."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if callable(found):
            self.calls.append(name)
        return found


def test_object_store_hundred_waits_share_one_listing(
    kind: Kind, connect: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(without=WITHOUT_WEBHOOK)
    monkeypatch.setenv("AIRFLOW__RUNQY__OBJECT_SWEEP_SECONDS", "0.2")
    context = load_context("runqy_default")
    sink = sink_from_uri(f"{kind.uri}/hundred")
    store = store_of(f"{kind.uri}/hundred")
    recording = RecordingStore(store)
    monkeypatch.setattr(type(sink), "store", lambda *_: recording)

    async def scenario() -> tuple[int, int]:
        waits = [
            asyncio.ensure_future(
                wait_any(
                    sink.bind(context).targets(JobRef(f"h-{n}")),
                    deadline=time.time() + 30,
                )
            )
            for n in range(100)
        ]
        while recording.calls.count("list_folder") < 4:
            await asyncio.sleep(0.02)
        listings, calls = recording.calls.count("list_folder"), len(recording.calls)
        names = [f"hundred/h-{n}" for n in range(100)]
        await asyncio.to_thread(put_objects, kind, store, names)
        arrivals = await asyncio.gather(*waits)
        assert {arrival.result_uri for arrival in arrivals if arrival} == {
            f"{kind.uri}/hundred/h-{n}" for n in range(100)
        }
        await close_waiters()
        return listings, calls

    listings, calls = asyncio.run(scenario())
    assert listings == calls, "a wait made a request for itself alone"
