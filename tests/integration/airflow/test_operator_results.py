"""Results of RunqyOperator that are references, or that are refused."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from runqy_provider.errors import (
    BadDelivery,
    JobFailed,
    NoAccess,
    SinkError,
)
from runqy_provider.hooks.result import RunqyResultHook
from runqy_provider.hooks.runqy import RunqyHook
from runqy_provider.models import is_reference
from runqy_sandbox.process.net import free_port
from tests.support.caches import s3_client
from tests.support.harness import outcome_of, run_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.stack import Stack

pytestmark = pytest.mark.usefixtures("connect", "no_settling")


@pytest.mark.parametrize("sink", ["webhook", "s3://results/large"])
def test_operator_large_or_binary_result_is_readable_reference(sink: str) -> None:
    large = outcome_of(run_of({"value": "x" * 100_000}, sink=sink))
    image = outcome_of(run_of({"bytes": 3_000_000}, sink=sink))

    assert is_reference(large)
    assert is_reference(image)
    assert (image["content_type"], image["size"]) == ("image/png", 3_000_000)
    hook = RunqyResultHook()
    assert hook.read(large).json() == "x" * 100_000
    assert hook.read(large).text() == '"' + "x" * 100_000 + '"'
    with hook.read(image).stream() as stream:
        assert stream.read(4) == b"xxxx"
    assert len(hook.read(image).bytes()) == 3_000_000


def test_reference_is_read_through_the_connection_that_it_names(
    connect: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The default connection of another store does not have the object."""
    two = connect()["runqy_default"]
    nowhere = {"endpoint_url": f"http://127.0.0.1:{free_port()}"}
    elsewhere = {"conn_type": "aws", "extra": nowhere}
    monkeypatch.setenv("AIRFLOW_CONN_ELSEWHERE", json.dumps(elsewhere))
    monkeypatch.setenv("AIRFLOW_CONN_TWO", json.dumps(two))
    sink = "s3://results/two"
    image = outcome_of(run_of({"bytes": 3}, sink=sink, runqy_conn_id="two"))
    connect(aws_conn_id="elsewhere")

    assert image["runqy_conn_id"] == "two"
    assert RunqyResultHook().read(image).bytes() == b"xxx"
    assert RunqyResultHook("two").read(image).bytes() == b"xxx"
    with pytest.raises(SinkError):
        RunqyResultHook("runqy_default").read(image).bytes()


def test_reference_without_connection_is_read_through_the_one_of_the_hook() -> None:
    image = outcome_of(run_of({"bytes": 3}, sink="s3://results/old"))
    del image["runqy_conn_id"]

    assert is_reference(image)
    assert RunqyResultHook().read(image).bytes() == b"xxx"


def test_operator_result_above_webhook_limit_fails_with_advice() -> None:
    with pytest.raises(JobFailed, match="s3://bucket/prefix"):
        outcome_of(run_of({"bytes": 9_000_000}))


def test_operator_result_outside_bucket_is_not_fetched() -> None:
    run = run_of({"numbers": [1]}, "guide_s3", sink="s3://other-bucket")
    s3_client("aws_default").create_bucket(Bucket="other-bucket")

    with pytest.raises(NoAccess, match="outside the bucket s3://other-bucket"):
        outcome_of(run)


def test_operator_webhook_sink_result_url_is_not_fetched() -> None:
    with pytest.raises(NoAccess, match="fetches nothing"):
        outcome_of(run_of({"numbers": [1]}, "guide_s3", sink="webhook"))


def test_operator_object_not_json_is_bad_delivery() -> None:
    run = run_of({}, "idle", sink="s3://results/bad").execute()
    job = run.xcoms["runqy_job"]
    s3_client("aws_default").put_object(
        Bucket="results",
        Key=f"bad/{job['delivery_id']}",
        Body=b"not json",
        ContentType="application/json",
    )

    with pytest.raises(BadDelivery, match="is not JSON"):
        raise run.resume(run.fire()).error


def test_operator_value_like_a_reference_is_returned_as_reference() -> None:
    forged = {
        "uri": "s3://results/other-job",
        "content_type": "application/json",
        "size": 1,
        "delivery_id": "d",
        "metadata": None,
    }
    value = outcome_of(run_of({"value": forged}))
    forged["runqy_conn_id"] = "two"
    named = outcome_of(run_of({"value": forged}))

    assert named["uri"].startswith("inbox://")
    del forged["runqy_conn_id"]
    assert value["uri"].startswith("inbox://")
    assert RunqyResultHook().read(value).json() == forged


@pytest.mark.parametrize("value", ["a\0b", "\ud800", {"k": ["\udfff"]}])
def test_operator_value_unfit_for_database_is_reference(value: Any) -> None:
    run = run_of({}, "idle").execute()
    with RunqyHook() as hook:
        payload = hook.get_job(run.xcoms["runqy_job"]["job_id"]).payload
    body = json.dumps({"task_id": payload["task_id"], "result": value})
    httpx.post(payload["webhook_url"], content=body).raise_for_status()
    reference = run.resume(run.fire()).value

    assert is_reference(reference)
    assert RunqyResultHook().read(reference).json() == value


def test_operator_object_without_content_type_is_read_as_json(stack: Stack) -> None:
    """Task code that only uploads an object does not set a content type."""
    run = run_of({}, "idle", sink="s3://results/untyped").execute()
    delivery_id = run.xcoms["runqy_job"]["delivery_id"]
    s3_client("aws_default").put_object(
        Bucket="results", Key=f"untyped/{delivery_id}", Body=b'{"a": 1}'
    )

    assert run.resume(run.fire()).value == {"a": 1}


@pytest.mark.parametrize("body", [b'{"loss": NaN}', b"[" * 50_000], ids=["NaN", "deep"])
def test_operator_invalid_json_object_is_bad_delivery(body: bytes) -> None:
    run = run_of({}, "idle", sink="s3://results/no-json").execute()
    delivery_id = run.xcoms["runqy_job"]["delivery_id"]
    s3_client("aws_default").put_object(
        Bucket="results",
        Key=f"no-json/{delivery_id}",
        Body=body,
        ContentType="application/json",
    )

    with pytest.raises(BadDelivery, match="is not JSON"):
        raise run.resume(run.fire()).error
