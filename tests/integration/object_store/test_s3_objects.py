"""Objects in S3 with special names, compressed objects, and few permissions."""

from __future__ import annotations

import gzip
import json
import uuid
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.exceptions import ClientError

from runqy_delivery import Delivery
from runqy_provider.errors import NoAccess
from runqy_provider.hooks.result import RunqyResultHook
from runqy_provider.models import is_reference
from runqy_provider.settings import load_settings
from runqy_provider.sinks.object_store.base import S3Put
from runqy_provider.sinks.object_store.s3 import S3Store
from runqy_provider.sinks.registry import sink_from_uri

if TYPE_CHECKING:
    from tests.support.stack import Stack

pytestmark = pytest.mark.usefixtures("connect")


@pytest.fixture
def s3(stack: Stack) -> Any:
    aws = stack.connections["aws_default"]
    return boto3.client(
        "s3",
        endpoint_url=stack.sandbox.s3_url,
        aws_access_key_id=aws["login"],
        aws_secret_access_key=aws["password"],
        region_name="us-east-1",
    )


@pytest.mark.parametrize(
    "name", ["PO# 12.csv", "what?.json", "100%41.json", "plain.json", "a%20b c.json"]
)
def test_s3_result_url_is_read_literally_first(s3: Any, name: str) -> None:
    key = f"{uuid.uuid4().hex}/{name}"
    s3.put_object(Bucket="results", Key=key, Body=b"found")
    sink = sink_from_uri("s3://results")
    delivery = Delivery("d-1")

    fetched = sink.bind(load_settings("runqy_default")).open_url(
        delivery, f"s3://results/{key}"
    )

    assert fetched.bytes() == b"found"
    # The URI in the reference is read literally, too.
    assert (
        sink.bind(load_settings("runqy_default")).open(fetched.uri).bytes() == b"found"
    )


def test_s3_result_url_quoted_is_found(s3: Any) -> None:
    key = f"{uuid.uuid4().hex}/a b.csv"
    s3.put_object(Bucket="results", Key=key, Body=b"found")

    fetched = (
        sink_from_uri("s3://results")
        .bind(load_settings("runqy_default"))
        .open_url(
            Delivery("d-1"),
            f"s3://results/{key.replace(' ', '%20')}",
        )
    )
    assert fetched.bytes() == b"found"


@pytest.mark.parametrize("size", [10, 200_000])
def test_s3_object_stored_compressed_is_decompressed(s3: Any, size: int) -> None:
    delivery_id, value = uuid.uuid4().hex, {"text": "x" * size}
    s3.put_object(
        Bucket="results",
        Key=f"packed/{delivery_id}",
        Body=gzip.compress(json.dumps(value).encode()),
        ContentType="application/json",
        ContentEncoding="gzip",
    )
    hook = RunqyResultHook()
    uri = f"s3://results/packed/{delivery_id}"

    outcome = hook.collect(sink_from_uri("s3://results/packed"), delivery_id, uri)

    if size < 65536:
        assert outcome == value
    else:
        assert is_reference(outcome)
        with hook.read(outcome).stream() as stream:
            assert stream.read(9) == b'{"text": '
        assert hook.read(outcome).json() == value


def test_s3_check_needs_only_permissions_of_the_prefix(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With ListBucket on the prefix only, HEAD of the bucket returns 403."""
    requests: list[dict[str, Any]] = []

    class Client:
        def head_bucket(self, **_: Any) -> Any:
            raise ClientError({"Error": {"Code": "403"}}, "HeadBucket")

        def list_objects_v2(self, **given: Any) -> Any:
            requests.append(given)
            if not given["Prefix"].startswith("team/"):
                raise ClientError({"Error": {"Code": "AccessDenied"}}, "ListObjectsV2")
            return {}

    monkeypatch.setattr(S3Store, "_client", lambda _self: Client())
    store = S3Store("results", "aws_default", S3Put(once=False))

    store.check("team/")
    assert requests == [{"Bucket": "results", "Prefix": "team/", "MaxKeys": 1}]
    with pytest.raises(NoAccess):
        store.check("")
