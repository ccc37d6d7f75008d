"""Results in S3, Google's storage, Azure's storage, and a folder."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from runqy_provider.errors import (
    DeliveryTimeout,
    JobFailed,
    Misconfigured,
    NoAccess,
    NotThere,
    SinkUnavailable,
)
from runqy_provider.hooks.result import RunqyResultHook
from runqy_provider.models import is_reference
from tests.integration.object_store.helpers import (
    WITHOUT_WEBHOOK,
    run_of,
    store_of,
)
from tests.support.caches import s3_client
from tests.support.harness import outcome_of, outcomes_of_example

if TYPE_CHECKING:
    from collections.abc import Callable

    from devtools.servers.azurite import Azurite
    from devtools.servers.google_storage import GoogleStorage
    from tests.integration.object_store.conftest import Kind

pytestmark = pytest.mark.usefixtures("connect", "no_settling")


def test_object_sink_value_is_returned(kind: Kind) -> None:
    value = {"a": [1, None]}

    assert outcome_of(run_of(f"{kind.uri}/values", {"value": value})) == value


def test_object_sink_without_webhook_value_is_returned(
    kind: Kind, connect: Callable[..., Any], short_intervals: None
) -> None:
    connect(without=WITHOUT_WEBHOOK)

    run = run_of(f"{kind.uri}/without_webhook", {"value": "text"})

    assert outcome_of(run) == "text"
    job = run.xcoms["runqy_job"]
    assert run.xcoms["runqy_delivery"]["where"].endswith(job["delivery_id"])


def test_object_sink_without_webhook_failure_has_traceback(
    kind: Kind, connect: Callable[..., Any], short_intervals: None
) -> None:
    connect(without=WITHOUT_WEBHOOK)

    with pytest.raises(JobFailed, match="ValueError: too dark") as caught:
        outcome_of(run_of(kind.uri, {"error": "too dark"}))
    assert "raise ValueError" in str(caught.value.traceback)


def test_object_sink_name_with_special_characters_works(
    kind: Kind, folder: Path, connect: Callable[..., Any], short_intervals: None
) -> None:
    # One of them by its notification, the others by a listing.
    connect(without=() if kind.scheme == "s3" else WITHOUT_WEBHOOK)
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


def test_object_sink_large_result_is_a_reference(kind: Kind) -> None:
    value = outcome_of(run_of(f"{kind.uri}/large", {"bytes": 12_000_000}))

    assert is_reference(value)
    assert value["uri"].startswith(f"{kind.uri}/large/")
    assert value["size"] == 12_000_000
    result = RunqyResultHook().read(value)
    # A folder stores no media types.
    assert result.content_type == (
        "application/octet-stream" if kind.scheme == "file" else "image/png"
    )
    with result.stream() as stream:
        count, block = 0, stream.read(1 << 20)
        while block:
            assert block == b"x" * len(block)
            count, block = count + len(block), stream.read(1 << 20)
    assert count == 12_000_000
    if kind.scheme == "s3":
        # One PUT, by the presigned URL: boto3 would upload more than 8 MB in parts.
        key = value["uri"].removeprefix("s3://results/")
        head = s3_client("aws_default").head_object(Bucket="results", Key=key)
        assert "-" not in head["ETag"]


def test_object_sink_without_signed_url_worker_credentials_are_used(
    azurite: Azurite, folder: Path
) -> None:
    sink = "abfs://results/own?presign=false"

    assert outcome_of(run_of(sink, {"value": 7})) == 7


@pytest.mark.parametrize(
    ("sink", "error", "message"),
    [
        ("gs://results?gcp_conn_id=bad_key", Misconfigured, "missing field"),
        ("gs://results?gcp_conn_id=no_pem", Misconfigured, "pem file"),
        ("gs://results?gcp_conn_id=no_file", Misconfigured, "/missing/file"),
        ("abfs://missing-bucket", NotThere, "missing-bucket.*does not exist"),
        ("file:///missing/folder", NotThere, "mount at the same path"),
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
        ("abfs://results?wasb_conn_id=unavailable", SinkUnavailable, "Could not use"),
    ],
)
def test_object_sink_invalid_input_enqueues_nothing(
    sink: str,
    error: type[Exception],
    message: str,
    google: GoogleStorage,
    azurite: Azurite,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wrong = azurite.connection_string.replace("Eby8", "AAAA")
    unavailable = azurite.connection_string.replace(azurite.url, "http://127.0.0.1:1/a")
    extras = {
        "refused": {
            "impersonation_chain": "an account",
            "managed_identity_client_id": "x",
        },
        "wrong_key": {"connection_string": wrong},
        "bad_key": {"keyfile_dict": '{"type": "service_account"}'},
        "no_pem": {"keyfile_dict": json.dumps({**google.key, "private_key": "x"})},
        "no_file": {"key_path": "/missing/file"},
        "bad_string": {"connection_string": "AccountKey=eA=="},
        "unavailable": {"connection_string": unavailable},
        "nothing": {},
    }
    for name, extra in extras.items():
        connection = {"conn_type": "generic", "extra": extra}
        variable = f"AIRFLOW_CONN_{name.upper()}"
        monkeypatch.setenv(variable, json.dumps(connection))
    run = run_of(sink, {"value": 1}).execute()

    assert run.state == "failed"
    with pytest.raises(error, match=message):
        raise run.error
    assert "runqy_job" not in run.xcoms


def test_file_sink_link_out_of_folder_is_not_followed(folder: Path) -> None:
    (folder / "out").symlink_to("/etc/passwd")
    store = store_of(f"file://{folder}")

    with pytest.raises(NoAccess, match="leads out of"):
        store.head("out")
    with pytest.raises(NoAccess, match="leads out of"):
        store.stream("out")


def test_object_sink_timeout_names_object(kind: Kind) -> None:
    run = run_of(kind.uri, {}, "idle", delivery_timeout=timedelta(seconds=0.3))

    with pytest.raises(DeliveryTimeout, match=f"{kind.uri}/"):
        outcome_of(run)


def test_object_sink_deleted_object_is_an_error(kind: Kind) -> None:
    store = store_of(kind.uri)

    with pytest.raises(NotThere):
        store.head("missing/object")
    with pytest.raises(NotThere), store.stream("missing/object") as stream:
        stream.read()
