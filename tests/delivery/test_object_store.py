"""Delivery to an object store: signed URLs, notifications, and failures as objects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from runqy_delivery import DeliveryUndeliverable, delivers
from runqy_delivery.sinks import object_store
from tests.delivery.helpers import STORED, s3_payload

if TYPE_CHECKING:
    from pathlib import Path

    from tests.delivery.helpers import HttpServer

pytestmark = pytest.mark.usefixtures("_no_store_clients")


def test_put_object_is_stored_before_the_notification(
    server: HttpServer, tmp_path: Path
) -> None:
    video = tmp_path / "video.mp4"
    video.write_bytes(b"film" * 300_000)

    delivers(lambda _payload: video)(s3_payload(server, webhook=True))

    put, notification = server.requests
    assert (put.method, put.headers["content-type"]) == ("PUT", "video/mp4")
    assert put.body == b"film" * 300_000
    expected = {
        "version": 1,
        "task_id": "d-1",
        "status": "completed",
        "result_url": "s3://results/renders/d-1",
        "content_type": "video/mp4",
        "size": 1_200_000,
    }
    assert expected == notification.json()


def test_put_without_webhook_sends_only_the_object(server: HttpServer) -> None:
    delivers(lambda _payload: {"a": 1})(s3_payload(server, webhook=False))

    assert [(put.method, put.body) for put in server.requests] == [("PUT", b'{"a":1}')]


def test_put_failure_without_webhook_is_an_object(server: HttpServer) -> None:
    @delivers
    def handle(_payload: Any) -> None:
        raise KeyError("frame")

    handle(s3_payload(server, webhook=False))

    assert server.requests[0].path.startswith("/results/renders/d-1.failed.json")
    assert server.requests[0].json()["error"]["type"] == "KeyError"


def test_put_rejected_notification_is_only_logged(server: HttpServer) -> None:
    server.responses = [(200, {}, b""), (403, {}, b"no")]

    assert delivers(lambda _payload: 1)(s3_payload(server, webhook=True)) is None


def test_put_headers_of_the_request_are_sent(server: HttpServer) -> None:
    headers = {"x-ms-blob-type": "BlockBlob"}
    payload = s3_payload(server, webhook=False, sink="abfs", put_headers=headers)

    delivers(lambda _payload: {"a": 1})(payload)

    (put,) = server.requests
    assert put.headers["x-ms-blob-type"] == "BlockBlob"
    assert put.headers["content-type"] == "application/json"


@pytest.mark.parametrize("sink", ["gs", "abfs"])
def test_put_without_url_and_obstore_names_the_package(
    server: HttpServer, sink: str
) -> None:
    payload = s3_payload(server, webhook=False, sink=sink, put_url=None)

    delivers(lambda _payload: 1)(payload)

    (put,) = server.requests
    assert put.path.startswith("/results/renders/d-1.failed")
    assert "Add obstore" in put.json()["error"]["message"]


def test_put_without_url_and_boto3_names_the_package(
    server: HttpServer,
) -> None:
    delivers(lambda _payload: 1)(s3_payload(server, webhook=False, put_url=None))

    assert "Add boto3" in server.requests[-1].json()["error"]["message"]


def test_put_without_bucket_raises(server: HttpServer) -> None:
    with pytest.raises(DeliveryUndeliverable, match="no bucket"):
        delivers(lambda _payload: 1)(s3_payload(server, webhook=False, bucket=None))


def test_put_content_over_limit_is_a_failure(
    server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(object_store.MAX_PUT_BYTES, "s3", 3)

    delivers(lambda _payload: b"1234")(s3_payload(server, webhook=True))

    assert [post.json()["status"] for post in server.requests] == ["failed"]


def test_put_content_rejected_as_too_large_is_a_failure(server: HttpServer) -> None:
    server.responses = [(413, {}, b"EntityTooLarge"), (200, {}, STORED)]

    delivers(lambda _payload: b"1234")(s3_payload(server, webhook=True))

    assert server.requests[1].json()["status"] == "failed"


def test_put_missing_bucket_raises(server: HttpServer) -> None:
    server.responses = [(404, {}, b"NoSuchBucket")]

    with pytest.raises(DeliveryUndeliverable, match="NoSuchBucket"):
        delivers(lambda _payload: 1)(s3_payload(server, webhook=False))
