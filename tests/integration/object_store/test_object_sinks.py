"""Results in S3, Google's storage, Azure's, and a folder."""

from __future__ import annotations

import json
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from azure.storage.blob import generate_container_sas

from devtools.servers.azurite import ACCOUNT, KEY
from runqy_delivery.sinks.signed_url import expiry_of
from runqy_provider.context import load_context
from runqy_provider.errors import (
    BadDelivery,
    DeliveryTimeout,
    JobFailed,
    Misconfigured,
    NoAccess,
    NotThere,
    SinkUnavailable,
)
from runqy_provider.hooks.result import RunqyResultHook
from runqy_provider.models import is_reference
from runqy_provider.sinks.object_store.s3_store import s3_client
from runqy_provider.sinks.object_store.sink import ObjectSink
from runqy_provider.sinks.registry import sink_from_uri
from tests.support import harness
from tests.support.harness import Run, outcome_of, outcomes_of_example

if TYPE_CHECKING:
    from collections.abc import Callable

    from devtools.servers.azurite import Azurite
    from devtools.servers.google_storage import GoogleStorage
    from runqy_delivery import DeliveryRequest
    from runqy_provider.sinks.object_store.base import ObjectStore
    from tests.integration.object_store.conftest import Kind

pytestmark = pytest.mark.usefixtures("connect", "no_settling")

#: Without these the inbox rings no bell: the store is all there is.
NO_BELL = ("callback_secret",)


def store_of(sink: str) -> ObjectStore:
    parsed = sink_from_uri(sink)
    assert isinstance(parsed, ObjectSink)
    return parsed.store(load_context("runqy_default"))


def sas_of_container() -> str:
    until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 600))
    sas: str = generate_container_sas(
        ACCOUNT, "results", account_key=KEY, permission="rlw", expiry=until
    )
    return sas


def run_of(
    sink: str, payload: Any = None, runqy_queue: str = "helper", **arguments: Any
) -> Run:
    return harness.run_of(payload, runqy_queue, sink=sink, **arguments)


@pytest.mark.parametrize("value", [{"a": [1, None]}, None, "text"])
def test_object_sink_value_is_returned(value: Any, kind: Kind) -> None:
    assert outcome_of(run_of(f"{kind.uri}/values", {"value": value})) == value


@pytest.mark.parametrize("value", [{"a": [1, None]}, "text"])
def test_object_sink_without_webhook_value_is_returned(
    value: Any, kind: Kind, connect: Callable[..., Any], short_intervals: None
) -> None:
    connect(without=NO_BELL)

    run = run_of(f"{kind.uri}/quiet", {"value": value})

    assert outcome_of(run) == value
    job = run.xcoms["runqy_job"]
    assert run.xcoms["runqy_delivery"]["where"].endswith(job["delivery_id"])


@pytest.mark.parametrize("has_webhook", [True, False])
def test_object_sink_failure_has_traceback(
    has_webhook: bool,
    kind: Kind,
    connect: Callable[..., Any],
    short_intervals: None,
) -> None:
    connect(without=() if has_webhook else NO_BELL)

    with pytest.raises(JobFailed, match="ValueError: too dark") as caught:
        outcome_of(run_of(kind.uri, {"error": "too dark"}))
    assert "raise ValueError" in str(caught.value.traceback)


@pytest.mark.parametrize("has_webhook", [True, False])
def test_object_sink_name_with_special_characters_works(
    has_webhook: bool,
    kind: Kind,
    folder: Path,
    connect: Callable[..., Any],
    short_intervals: None,
) -> None:
    connect(without=() if has_webhook else NO_BELL)
    Path(folder, "a b#1", "50%20?").mkdir(parents=True, exist_ok=True)
    sink = f"{kind.uri}/a%20b%231/50%2520%3F"
    if kind.scheme == "abfs":
        sink += "?presign=false"

    large = outcome_of(run_of(sink, {"bytes": 10}))

    assert outcome_of(run_of(sink, {"value": 7})) == 7
    assert large["uri"].startswith(f"{sink.partition('?')[0]}/")
    assert RunqyResultHook().read(large).bytes() == b"x" * 10


def test_object_sink_task_code_of_the_guide_runs_unmodified(kind: Kind) -> None:
    run = run_of(kind.uri, {"numbers": [1, 2]}, f"guide_{kind.scheme}")

    assert outcome_of(run) == {"sum": 3}


@pytest.mark.parametrize(
    ("dag_id", "total"), [("runqy_google", 15), ("runqy_azure", 18)]
)
def test_object_sink_example_dag_runs(dag_id: str, total: int) -> None:
    outcomes = outcomes_of_example(dag_id)

    assert outcomes["by_guide"] == {"sum": total}
    assert is_reference(outcomes["render"])


def test_object_sink_fifty_megabytes_are_a_reference(kind: Kind) -> None:
    value = outcome_of(run_of(f"{kind.uri}/large", {"bytes": 50_000_000}))

    assert is_reference(value)
    assert value["uri"].startswith(f"{kind.uri}/large/")
    assert value["size"] == 50_000_000
    result = RunqyResultHook().read(value)
    # A folder keeps no media types: there, the bell brings it.
    assert result.content_type == (
        "application/octet-stream" if kind.scheme == "file" else "image/png"
    )
    with result.stream() as stream:
        count, block = 0, stream.read(1 << 20)
        while block:
            assert block == b"x" * len(block)
            count, block = count + len(block), stream.read(1 << 20)
    assert count == 50_000_000
    if kind.scheme == "s3":
        # One PUT, by the presigned URL: boto3 of the worker's own would make parts.
        key = value["uri"].removeprefix("s3://results/")
        head = s3_client("aws_default").head_object(Bucket="results", Key=key)
        assert "-" not in head["ETag"]


def test_object_sink_without_signed_url_worker_credentials_are_used(
    azurite: Azurite, folder: Path
) -> None:
    sink = "abfs://results/own?presign=false"

    assert outcome_of(run_of(sink, {"value": 7})) == 7


def test_object_sink_link_is_given(kind: Kind) -> None:
    run = run_of(f"{kind.uri}/linked", {"bytes": 10})
    outcome_of(run)

    link = run.xcoms["_link_ResultLink"]
    assert link == (run.xcoms["runqy_delivery"]["download_url"] or "")
    if kind.scheme == "file":
        assert link == ""
    else:
        assert httpx.get(link).content == b"x" * 10


def test_object_sink_link_seconds_zero_gives_no_link(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AIRFLOW__RUNQY__LINK_SECONDS", "0")
    run = run_of("abfs://results/linked", {"bytes": 10})
    outcome_of(run)

    assert run.xcoms["_link_ResultLink"] == ""


def test_object_sink_link_error_does_not_fail_the_task(
    azurite: Azurite, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = {"conn_type": "wasb", "login": ACCOUNT, "host": azurite.url}
    extra = {"sas_token": sas_of_container()}
    text = json.dumps({**connection, "extra": extra})
    monkeypatch.setenv("AIRFLOW_CONN_WASB_DEFAULT", text)
    run = run_of("abfs://results/linked?presign=false", {"bytes": 10})

    assert is_reference(outcome_of(run))
    assert run.xcoms["_link_ResultLink"] == ""


@pytest.mark.parametrize(
    ("sink", "error", "words"),
    [
        ("gs://results?gcp_conn_id=bad_key", Misconfigured, "missing field"),
        ("gs://results?gcp_conn_id=no_pem", Misconfigured, "pem file"),
        ("gs://results?gcp_conn_id=no_file", Misconfigured, "/nobody/has/this"),
        ("abfs://nobody-has-this", NotThere, "nobody-has-this.*does not exist"),
        ("file:///nobody/has/this", NotThere, "mount at the same path"),
        ("file://relative/folder", Misconfigured, "not a valid sink"),
        ("file:///a/../etc", Misconfigured, "not an absolute path"),
        ("file:///tmp?presign=true", Misconfigured, "presign=true is not possible"),
        ("gs://UPPER", Misconfigured, "not a valid name of a bucket"),
        ("abfs://a", Misconfigured, "not a valid name of a container"),
        ("gs://results?aws_conn_id=x", Misconfigured, "has the options presign and"),
        ("gs://results?gcp_conn_id=refused", Misconfigured, "impersonation_chain"),
        ("abfs://results?wasb_conn_id=refused", Misconfigured, "managed_identity"),
        ("abfs://results?wasb_conn_id=wrong_key", NoAccess, "access denied"),
        ("abfs://results?wasb_conn_id=nothing", Misconfigured, "no storage account"),
        ("abfs://results?wasb_conn_id=bad_string", Misconfigured, "no AccountName"),
        ("abfs://results?wasb_conn_id=away", SinkUnavailable, "Could not use"),
    ],
)
def test_object_sink_invalid_input_enqueues_nothing(
    sink: str,
    error: type[Exception],
    words: str,
    google: GoogleStorage,
    azurite: Azurite,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wrong = azurite.connection_string.replace("Eby8", "AAAA")
    away = azurite.connection_string.replace(azurite.url, "http://127.0.0.1:1/a")
    extras = {
        "refused": {
            "impersonation_chain": "somebody",
            "managed_identity_client_id": "x",
        },
        "wrong_key": {"connection_string": wrong},
        "bad_key": {"keyfile_dict": '{"type": "service_account"}'},
        "no_pem": {"keyfile_dict": json.dumps({**google.key, "private_key": "x"})},
        "no_file": {"key_path": "/nobody/has/this"},
        "bad_string": {"connection_string": "AccountKey=eA=="},
        "away": {"connection_string": away},
        "nothing": {},
    }
    for name, extra in extras.items():
        connection = {"conn_type": "generic", "extra": extra}
        variable = f"AIRFLOW_CONN_{name.upper()}"
        monkeypatch.setenv(variable, json.dumps(connection))
    run = run_of(sink, {"value": 1}).execute()

    assert run.state == "failed"
    with pytest.raises(error, match=words):
        raise run.error
    assert "runqy_job" not in run.xcoms


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
    strangers = [
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

    assert [url for url in strangers if store.key_of(url) is not None] == []
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


def test_file_sink_link_out_of_folder_is_not_followed(folder: Path) -> None:
    (folder / "out").symlink_to("/etc/passwd")
    store = store_of(f"file://{folder}")

    with pytest.raises(NoAccess, match="leads out of"):
        store.head("out")
    with pytest.raises(NoAccess, match="leads out of"):
        store.stream("out")


def test_object_sink_timeout_names_object(kind: Kind) -> None:
    run = run_of(kind.uri, {}, "idle", delivery_timeout=timedelta(seconds=1))

    with pytest.raises(DeliveryTimeout) as caught:
        outcome_of(run)
    assert f"No object was found at {kind.uri}/" in str(caught.value)


def test_object_sink_deleted_object_is_an_error(kind: Kind) -> None:
    store = store_of(kind.uri)

    with pytest.raises(NotThere):
        store.head("nobody/wrote/this")
    with pytest.raises(NotThere), store.stream("nobody/wrote/this") as stream:
        stream.read()


@pytest.mark.parametrize("uri", ["s3://results", "gs://results", "abfs://results"])
def test_object_sink_signed_url_beyond_seven_days_is_warned_of(
    uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    sink, access, day = sink_from_uri(uri), load_context("runqy_default"), 24 * 3600

    request = sink.bind(access).request("d-1", time.time() + 6 * day)
    assert days_of(request) == pytest.approx(6, abs=0.1)
    assert not caplog.messages

    request = sink.bind(access).request("d-2", time.time() + 9 * day)
    assert days_of(request) == pytest.approx(7, abs=0.1)
    (words,) = caplog.messages
    assert f"{uri}/d-2 works for 7 days only" in words
    assert "may take 9.0" in words
    assert "Signature" not in words


def days_of(request: DeliveryRequest) -> float:
    """Return for how many days a request's signed URL works."""
    assert request.put_url is not None
    until = expiry_of(request.put_url)
    assert until is not None
    return (until.timestamp() - time.time()) / 86400
