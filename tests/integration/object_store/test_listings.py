"""A poll of a store is one complete listing for all waits in a folder."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import httpx
import pytest

from runqy_provider.errors import NoAccess
from runqy_provider.models import JobRef
from runqy_provider.settings import load_settings
from runqy_provider.sinks.object_store.base import Listing
from runqy_provider.sinks.object_store.listing import ObjectSource
from runqy_provider.sinks.registry import sink_from_uri
from runqy_provider.waiters.race import wait_any
from runqy_provider.waiters.waiter import close_waiters
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


#: Names on a page of a listing: Google's own number, and the one that S3 is asked for.
#: Azure's 5000 would take too long.
PAGES = {"s3": 10, "gs": 1000}


def shorten_pages(client: Any) -> None:
    """Ask S3 for pages that are shorter than its own, of 1000 names."""

    def limit(params: dict[str, Any], **_: Any) -> None:
        params["MaxKeys"] = PAGES["s3"]

    client.meta.events.register("before-parameter-build.s3.ListObjectsV2", limit)


def test_object_store_listing_with_many_pages_is_complete(
    kind: Kind, connect: Callable[..., Any]
) -> None:
    last = PAGES.get(kind.scheme, 10)
    names = [f"many/{n:04}" for n in range(last + 1)]
    store: Any = store_of(kind.uri)
    put_objects(kind, store, names)
    if kind.scheme == "s3":
        shorten_pages(store._client())

    listing = store.list_folder("many/")
    assert set(listing.keys) == set(names)
    assert listing.pages == (2 if kind.scheme in PAGES else 1)

    connect(without=WITHOUT_WEBHOOK)
    sink = sink_from_uri(f"{kind.uri}/many")
    settings = load_settings("runqy_default")

    async def scenario() -> Any:
        waits = [
            asyncio.ensure_future(
                wait_any(
                    sink.bind(settings).targets(JobRef(delivery_id)),
                    deadline=time.time() + 20,
                )
            )
            for delivery_id in (f"{last:04}", "never-1", "never-2")
        ]
        try:
            return await waits[0]
        finally:
            for wait in waits:
                wait.cancel()
            await close_waiters()

    arrival = asyncio.run(scenario())
    assert arrival.result_uri == f"{kind.uri}/many/{last:04}"


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
    settings = load_settings("runqy_default")
    sink = sink_from_uri(f"{kind.uri}/hundred")
    store = store_of(f"{kind.uri}/hundred")
    recording = RecordingStore(store)
    monkeypatch.setattr(type(sink), "store", lambda *_: recording)

    async def scenario() -> tuple[int, int]:
        waits = [
            asyncio.ensure_future(
                wait_any(
                    sink.bind(settings).targets(JobRef(f"h-{n}")),
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


def test_object_store_waits_in_own_folders_share_one_listing_above(
    kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_of(kind.uri)
    recording = RecordingStore(store)
    source = ObjectSource(lambda: recording)
    names = [f"own/{n}/result" for n in range(20)]
    if kind.scheme == "file":
        for n in range(20):
            Path(kind.uri.removeprefix("file://"), "own", str(n)).mkdir(parents=True)
    put_objects(kind, store, names[:3])

    found = source._poll([*names, "own/late"])
    assert set(found) == set(names[:3])
    if kind.scheme == "file":
        return  # to look for a file is not a request
    assert recording.calls == ["list_below"]

    # So many others that it takes less to look for each.
    put_objects(kind, store, [f"own/other/{n}" for n in range(4)])
    monkeypatch.setattr(type(store), "list_below", lambda *_: None)
    recording.calls.clear()
    assert set(source._poll(names[:2])) == set(names[:2])
    assert set(source._poll(names[:2])) == set(names[:2])
    assert recording.calls == ["list_below", "find", "find", "find", "find"]


def test_object_store_listing_below_stops_at_its_limit(kind: Kind) -> None:
    store = store_of(kind.uri)
    put_objects(kind, store, [f"limit{n}" for n in range(3)])
    if kind.scheme == "file":
        assert store.list_below("", 1) is None
        return
    listing = store.list_below("", 1000)
    assert listing is not None
    assert {f"limit{n}" for n in range(3)} <= set(listing.keys)


def test_s3_listing_above_of_many_pages_is_not_used(
    connect: Callable[..., Any],
) -> None:
    """Nothing is deleted, as in a bucket of old results."""
    connect(without=WITHOUT_WEBHOOK)
    store: Any = store_of("s3://results")
    s3 = store._client()
    for n in range(PAGES["s3"] + 1):
        s3.put_object(Bucket="results", Key=f"old/{n % 7}/{n}", Body=b"1")
    shorten_pages(s3)

    assert store.list_below("old/", 1) is None
    listing = store.list_below("old/", 2)
    assert listing is not None
    assert (len(listing.keys), listing.pages) == (PAGES["s3"] + 1, 2)


def test_object_source_listing_above_refused_is_not_tried_again() -> None:
    """Permissions may be limited to the folders of the results."""

    class Store:
        url = "s3://results"
        calls: ClassVar[list[str]] = []

        def list_below(self, folder: str, most_pages: int) -> None:
            self.calls.append(f"below {folder} {most_pages}")
            raise NoAccess("denied")

        def find(self, key: str, suffix: str) -> Listing:
            self.calls.append(key)
            return Listing({key: 1.0})

    store: Any = Store()
    source = ObjectSource(lambda: store)
    for _ in range(2):
        assert set(source._poll(["a/1/x", "a/2/x"])) == {"a/1/x", "a/2/x"}

    assert store.calls == ["below a/ 1", *["a/1/x", "a/2/x"] * 2]
