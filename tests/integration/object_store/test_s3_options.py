"""Options of s3:// sinks: what is signed, for which region, and sent as headers."""

from __future__ import annotations

import base64
import json
import threading
import time
import uuid
import zlib
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import boto3
import httpx
import pytest
from botocore.exceptions import ClientError

from runqy_delivery import DeliveryRequest, delivers
from runqy_provider.errors import Misconfigured, SinkUnavailable
from runqy_provider.settings import load_settings
from runqy_provider.sinks.object_store import s3 as s3_module
from runqy_provider.sinks.registry import sink_from_uri
from tests.integration.object_store.helpers import store_of
from tests.support.caches import clear_clients

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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
    settings = load_settings("runqy_default")
    return sink_from_uri(sink).bind(settings).request(delivery_id, time.time() + 60)


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


@dataclass
class OlderStore:
    """A store in front of the sandbox's, without what S3 has added since 2024.

    Attributes:
        url: Its endpoint.
        status: What it answers to a PUT with ``If-None-Match``.
        puts: The headers of the PUTs, with names in lower case.
    """

    url: str = ""
    status: int = 501
    puts: list[dict[str, str]] = field(default_factory=list)


@pytest.fixture
def older(
    stack: Stack, connect: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> Iterator[OlderStore]:
    """The store of ``aws_default``."""
    store = OlderStore()

    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            if self.command == "PUT":
                store.puts.append(headers)
            if "if-none-match" in headers:
                self._respond(
                    store.status, b"<Error><Code>NotImplemented</Code></Error>"
                )
            elif "chunked" in headers.get("content-encoding", ""):
                text = b"<Error><Code>MissingContentLength</Code></Error>"
                self._respond(411, text)
            else:
                url = stack.sandbox.s3_url + self.path
                del headers["host"]
                answer = httpx.request(self.command, url, content=body, headers=headers)
                self._respond(answer.status_code, answer.content)

        def _respond(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Location", store.url)
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_PUT = do_HEAD = do_DELETE = _serve  # noqa: N815 - the base class's

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    store.url = f"http://127.0.0.1:{server.server_port}"
    aws = connect()["aws_default"]
    aws["extra"]["endpoint_url"] = store.url
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", json.dumps(aws))
    clear_clients()
    yield store
    server.shutdown()
    server.server_close()
    clear_clients()


def _check(sink: str) -> None:
    sink_from_uri(sink).bind(load_settings("runqy_default")).check()


@pytest.mark.parametrize("status", [501, 307])
def test_s3_store_without_if_none_match_is_found_by_check(
    older: OlderStore, status: int
) -> None:
    older.status = status

    with pytest.raises(Misconfigured, match="once=false"):
        _check("s3://results/older")
    for option in ("once=false", "presign=false"):
        _check(f"s3://results/older?{option}")


def test_s3_check_stores_no_object_and_is_made_once(stack: Stack, s3: Any) -> None:
    folder = uuid.uuid4().hex
    _check(f"s3://results/{folder}")

    listing = s3.list_objects_v2(Bucket="results", Prefix=folder)
    assert listing["KeyCount"] == 0
    endpoints = {endpoint for endpoint, _ in s3_module._takes_once}
    assert stack.sandbox.s3_url in endpoints


def test_s3_manifest_is_sent_with_its_length_and_checksum(
    older: OlderStore, s3: Any
) -> None:
    key = f"{uuid.uuid4().hex}.jsonl"
    store_of("s3://results/older?once=false").write(key, BytesIO(b"lines"), "text/x")

    assert s3.get_object(Bucket="results", Key=key)["Body"].read() == b"lines"
    (headers,) = older.puts
    assert headers["content-length"] == "5"
    assert "x-amz-trailer" not in headers
    crc32 = zlib.crc32(b"lines").to_bytes(4, "big")
    assert headers["x-amz-checksum-crc32"] == base64.b64encode(crc32).decode()


@pytest.mark.parametrize("code", ["MissingContentLength", "NotImplemented"])
def test_s3_store_without_checksums_names_the_option(code: str) -> None:
    refused = ClientError({"Error": {"Code": code, "Message": ""}}, "PutObject")

    with (
        pytest.raises(SinkUnavailable, match="request_checksum_calculation"),
        s3_module.S3Store("b", "aws")._errors("write", "k"),
    ):
        raise refused


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

    monkeypatch.setattr(s3_module, "_regions", {})
    assert s3_module._region_of("aws_default", "b", Client()) is None
