"""Signed URLs and links, and which URLs name an object of a sink's bucket."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from devtools.servers.azurite import ACCOUNT, KEY
from runqy_delivery.sinks.signed_url import expiry_of
from runqy_provider.errors import BadDelivery, NoAccess
from runqy_provider.models import is_reference
from runqy_provider.settings import load_settings
from runqy_provider.sinks.registry import sink_from_uri
from tests.integration.object_store.helpers import (
    run_of,
    sas_of_container,
    store_of,
)
from tests.support.harness import outcome_of

if TYPE_CHECKING:
    from pathlib import Path

    from devtools.servers.azurite import Azurite
    from devtools.servers.google_storage import GoogleStorage
    from runqy_delivery import DeliveryRequest
    from tests.integration.object_store.conftest import Kind

pytestmark = pytest.mark.usefixtures("connect", "no_settling")


def test_object_sink_link_is_given(kind: Kind) -> None:
    run = run_of(f"{kind.uri}/linked", {"bytes": 10})
    outcome_of(run)

    link = run.xcoms.get("_link_ResultLink")
    assert link == run.xcoms["runqy_delivery"]["download_url"]
    if kind.scheme == "file":
        assert link is None
    else:
        assert httpx.get(link).content == b"x" * 10


def test_object_sink_link_seconds_zero_gives_no_link(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AIRFLOW__RUNQY__LINK_SECONDS", "0")
    run = run_of("abfs://results/linked", {"bytes": 10})
    outcome_of(run)

    assert "_link_ResultLink" not in run.xcoms


def test_object_sink_link_error_does_not_fail_the_task(
    azurite: Azurite, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = {"conn_type": "wasb", "login": ACCOUNT, "host": azurite.url}
    extra = {"sas_token": sas_of_container()}
    text = json.dumps({**connection, "extra": extra})
    monkeypatch.setenv("AIRFLOW_CONN_WASB_DEFAULT", text)
    run = run_of("abfs://results/linked?presign=false", {"bytes": 10})

    assert is_reference(outcome_of(run))
    assert "_link_ResultLink" not in run.xcoms


@pytest.mark.parametrize(
    "fields",
    [
        {"login": "devstoreaccount1", "password": "KEY", "host": "URL"},
        {"login": "devstoreaccount1", "host": "URL", "extra": {"sas_token": "SAS"}},
    ],
)
def test_azure_sink_other_credentials_work(
    fields: dict[str, Any], azurite: Azurite, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = json.dumps({"conn_type": "wasb", **fields})
    text = (
        text.replace("SAS", sas_of_container())
        .replace("KEY", KEY)
        .replace("URL", azurite.url)
    )
    monkeypatch.setenv("AIRFLOW_CONN_WASB_DEFAULT", text)
    store = store_of("abfs://results")
    store.check("")

    if "extra" in fields:
        # A SAS token cannot sign further URLs.
        with pytest.raises(NoAccess, match="presign=false"):
            store.sign_put("k", 60)
    else:
        put = store.sign_put("signed/k", 60)
        assert put is not None
        headers = {**(put.headers or {}), "Content-Type": "text/plain"}
        httpx.put(put.url, content=b"1", headers=headers).raise_for_status()
        assert store.head("signed/k").content_type == "text/plain"
    assert store.list_folder("signed/").pages == 1


@pytest.mark.parametrize("name", ["a b", "a%b", "a#b", "é", "a?b"])
def test_azure_sink_unsignable_name_is_refused(name: str) -> None:
    store = store_of("abfs://results")

    with pytest.raises(NoAccess, match="presign=false"):
        store.sign_put(name, 60)
    with pytest.raises(NoAccess, match="presign=false"):
        store.sign_get(name, 60)


@pytest.mark.parametrize("name", ["a+b!$&'()*,;=:@[]|~/c", "a.b-c_d"])
def test_azure_sink_signable_names_are_signed(name: str) -> None:
    store = store_of("abfs://results")
    put = store.sign_put(name, 60)
    link = store.sign_get(name, 60)

    assert put is not None
    assert link is not None
    httpx.put(put.url, content=b"1", headers=put.headers).raise_for_status()
    assert httpx.get(link).content == b"1"


def test_object_sink_result_url_elsewhere_is_not_fetched(
    kind: Kind, folder: Path
) -> None:
    store = store_of(kind.uri)
    foreign = [
        "https://evil.example.com/results/x",
        "s3://other/x",
        "gs://other/x",
        "https://storage.googleapis.com/other/x",
        "https://results.storage.googleapis.com.evil.example.com/x",
        "abfs://other/x",
        "abfs://results@other.dfs.core.windows.net/x",
        "https://other.blob.core.windows.net/results/x",
        f"file://{folder}/../x",
        f"file://{folder}x/y",
        "file://host/x",
        "/etc/passwd",
        "",
    ]

    assert [url for url in foreign if store.key_of(url) is not None] == []
    with pytest.raises(BadDelivery):
        store.key_of("http://[")


def test_object_sink_result_url_in_bucket_is_read(
    google: GoogleStorage, folder: Path
) -> None:
    known = {
        "gs://results": [
            "gs://results/a b/c",
            "https://storage.googleapis.com/results/a%20b/c?X-Goog-Signature=x",
            "https://results.storage.googleapis.com/a%20b/c",
            "https://storage.cloud.google.com/results/a%20b/c",
        ],
        "abfs://results": [
            "abfs://results/a b/c",
            "abfss://results@devstoreaccount1.dfs.core.windows.net/a b/c",
            "https://devstoreaccount1.blob.core.windows.net/results/a%20b/c?sig=x",
        ],
        f"file://{folder}": [f"file://{folder}/a%20b/c", f"{folder}/a b/c"],
    }
    for uri, urls in known.items():
        store = store_of(uri)
        assert {store.key_of(url) for url in urls} == {"a b/c"}


@pytest.mark.parametrize("uri", ["s3://results", "gs://results", "abfs://results"])
def test_object_sink_signed_url_beyond_seven_days_is_warned_of(
    uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    sink, context, day = sink_from_uri(uri), load_settings("runqy_default"), 24 * 3600

    request = sink.bind(context).request("d-1", time.time() + 6 * day)
    assert days_of(request) == pytest.approx(6, abs=0.1)
    assert not caplog.messages

    request = sink.bind(context).request("d-2", time.time() + 9 * day)
    assert days_of(request) == pytest.approx(7, abs=0.1)
    (message,) = caplog.messages
    assert f"{uri}/d-2 " in message
    assert "7 days" in message
    assert "may take 9.0" in message
    assert "Signature" not in message


def days_of(request: DeliveryRequest) -> float:
    """Return for how many days a request's signed URL works."""
    assert request.put_url is not None
    until = expiry_of(request.put_url)
    assert until is not None
    return (until.timestamp() - time.time()) / 86400
