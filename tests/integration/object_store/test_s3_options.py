"""Options of s3:// sinks: what is signed, for which region, and sent as headers."""

from __future__ import annotations

import json
import time
import uuid
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import boto3
import httpx
import pytest

from runqy_delivery import DeliveryRequest, delivers
from runqy_provider.context import load_context
from runqy_provider.errors import Misconfigured
from runqy_provider.sinks.object_store import s3_store
from runqy_provider.sinks.object_store.clients import clear_clients
from runqy_provider.sinks.registry import sink_from_uri
from tests.integration.object_store.helpers import store_of

if TYPE_CHECKING:
    from tests.support.stack import Stack

pytestmark = pytest.mark.usefixtures("connect")


def _login(stack: Stack) -> dict[str, str]:
    aws = stack.connections["aws_default"]
    return {
        "endpoint_url": stack.sandbox.s3_url,
        "aws_access_key_id": aws["login"],
        "aws_secret_access_key": aws["password"],
    }


@pytest.fixture
def s3(stack: Stack) -> Any:
    return boto3.client("s3", region_name="us-east-1", **_login(stack))


def _request(sink: str, delivery_id: str = "d-1") -> DeliveryRequest:
    context = load_context("runqy_default")
    return sink_from_uri(sink).bind(context).request(delivery_id, time.time() + 60)


def _deliver(request: DeliveryRequest, value: Any) -> None:
    # Without the notice by webhook: these tests are about the object.
    fields = request.to_fields()
    fields.pop("webhook_url", None)
    delivers(lambda _payload: value)(fields)


def test_s3_second_put_is_refused(s3: Any) -> None:
    request = _request("s3://results/once", uuid.uuid4().hex)
    _deliver(request, "first")
    _deliver(request, "second")

    again = httpx.put(
        str(request.put_url), content=b"x", headers=dict(request.put_headers or {})
    )
    stored = s3.get_object(Bucket="results", Key=request.key)["Body"].read()
    assert again.status_code == 412
    assert json.loads(stored) == "first"


def test_s3_once_false_does_not_send_if_none_match() -> None:
    sink = sink_from_uri("s3://results/once?once=false")

    assert sink.uri == "s3://results/once?once=false"
    assert _request(sink.uri).put_headers is None


@pytest.mark.parametrize("region", ["eu-west-1", "us-east-1"])
def test_s3_url_is_signed_for_region_of_bucket(
    stack: Stack, region: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = f"b-{uuid.uuid4().hex}"
    location = {"CreateBucketConfiguration": {"LocationConstraint": region}}
    more: Any = {} if region == "us-east-1" else location
    maker = boto3.client("s3", region_name=region, **_login(stack))
    maker.create_bucket(Bucket=bucket, **more)
    aws = stack.connections["aws_default"]
    without = {**aws, "extra": {"endpoint_url": stack.sandbox.s3_url}}
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", json.dumps(without))
    clear_clients()

    request = _request(f"s3://{bucket}/x")

    query = parse_qs(urlsplit(str(request.put_url)).query)
    assert query["X-Amz-Credential"][0].split("/")[2] == region
    _deliver(request, 1)


def test_s3_options_of_bucket_policy_are_signed_and_sent(s3: Any) -> None:
    uri = (
        "s3://results/demanded?sse=aws%3Akms&kms_key_id=key-1"
        "&acl=bucket-owner-full-control"
    )
    request = _request(uri, uuid.uuid4().hex)
    query = parse_qs(urlsplit(str(request.put_url)).query)
    headers = request.put_headers or {}

    assert sink_from_uri(uri).uri == uri
    assert headers["x-amz-server-side-encryption"] == "aws:kms"
    assert headers["x-amz-server-side-encryption-aws-kms-key-id"] == "key-1"
    assert headers["x-amz-acl"] == "bucket-owner-full-control"
    signed = set(query["X-Amz-SignedHeaders"][0].split(";"))
    assert {name.lower() for name in headers} <= signed
    _deliver(request, 1)
    head = s3.head_object(Bucket="results", Key=request.key)
    assert head["ServerSideEncryption"] == "aws:kms"


def test_s3_worker_credentials_send_options_of_bucket_policy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from runqy_delivery.result import content_of
    from runqy_delivery.sinks import uploads

    seen: list[Any] = []

    class Client:
        def upload_fileobj(self, *_: Any, **given: Any) -> None:
            seen.append(given["ExtraArgs"])

    monkeypatch.setattr(boto3, "client", lambda _name: Client())
    upload = uploads.uploader("s3")
    assert upload is not None
    upload("b", "k", content_of(1), {"x-amz-acl": "private", "If-None-Match": "*"})

    assert seen == [{"ContentType": "application/json", "ACL": "private"}]


@pytest.mark.parametrize("level", ["sink", "connection"])
def test_s3_signed_endpoint_is_used_in_urls(
    level: str, stack: Stack, s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = stack.sandbox.s3_url.replace("127.0.0.1", "localhost")
    sink = "s3://results/far"
    if level == "sink":
        sink = f"{sink}?signed_endpoint={endpoint}"
    else:
        aws = json.loads(json.dumps(stack.connections["aws_default"]))
        aws["extra"]["signed_endpoint_url"] = endpoint
        monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", json.dumps(aws))
        clear_clients()
    request = _request(sink, uuid.uuid4().hex)

    assert str(request.put_url).startswith(endpoint)
    _deliver(request, 1)
    assert s3.head_object(Bucket="results", Key=request.key)["ContentLength"] == 1
    assert store_of(sink).key_of(f"{endpoint}/results/{request.key}") == request.key


@pytest.mark.parametrize("option", ["once=maybe", "unknown=1"])
def test_s3_invalid_option_is_refused(option: str) -> None:
    with pytest.raises(Misconfigured):
        sink_from_uri(f"s3://results?{option}")


def test_s3_unknown_region_uses_that_of_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Client:
        def head_bucket(self, **_: Any) -> Any:
            return {"ResponseMetadata": {"HTTPHeaders": {}}}

    monkeypatch.setattr(s3_store, "_regions", {})
    assert s3_store._region_of("aws_default", "b", Client()) is None
