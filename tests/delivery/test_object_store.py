"""Delivery into S3 by presigned URL, against a real HTTP server that takes PUTs."""

from __future__ import annotations

import socket
import sys
import threading
import types
from typing import TYPE_CHECKING, Any, BinaryIO

import pytest

from runqy_delivery import DeliveryRequest, DeliveryUndeliverable, delivers
from runqy_delivery.sinks import object_store

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Server


@pytest.fixture(autouse=True)
def _no_boto3(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    monkeypatch.setitem(sys.modules, "obstore", None)


def payload_for(server: Server, *, bell: bool, **fields: Any) -> dict[str, Any]:
    given = {
        "sink": "s3",
        "url": "s3://results/renders/d-1",
        "bucket": "results",
        "key": "renders/d-1",
        "put_url": f"{server.url}/results/renders/d-1?X-Amz-Signature=SECRET",
        "failed_key": None if bell else "renders/d-1.failed.json",
        "failed_put_url": None
        if bell
        else f"{server.url}/results/renders/d-1.failed.json?X-Amz-Signature=SECRET",
        "webhook_url": f"{server.url}/bell" if bell else None,
        **fields,
    }
    return DeliveryRequest("d-1", **given).to_fields()


def test_the_object_is_put_and_then_the_bell_rung(
    server: Server, tmp_path: Path
) -> None:
    film = tmp_path / "film.mp4"
    film.write_bytes(b"film" * 300_000)

    delivers(lambda _payload: film)(payload_for(server, bell=True))

    put, bell = server.seen
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
    assert expected == bell.json()


def test_without_a_bell_the_object_is_all(server: Server) -> None:
    delivers(lambda _payload: {"a": 1})(payload_for(server, bell=False))

    assert [(s.method, s.body) for s in server.seen] == [("PUT", b'{"a":1}')]


def test_without_a_bell_a_failure_is_an_object_too(server: Server) -> None:
    @delivers
    def handle(_payload: Any) -> None:
        raise KeyError("frame")

    handle(payload_for(server, bell=False))

    assert server.seen[0].path.startswith("/results/renders/d-1.failed.json")
    assert server.seen[0].json()["error"]["type"] == "KeyError"


def test_a_put_is_tried_again_with_the_whole_body(server: Server) -> None:
    server.answers = [(503, {}, b"SlowDown"), (200, {}, b"")]

    delivers(lambda _payload: b"abc")(payload_for(server, bell=False))

    assert [seen.body for seen in server.seen] == [b"abc", b"abc"]


@pytest.mark.parametrize(
    ("query", "words"),
    [
        (
            "X-Amz-Date=20240102T030405Z&X-Amz-Expires=60&X-Amz-Signature=SECRET",
            "expired at 2024-01-02 03:05:05 UTC",
        ),
        (
            "X-Goog-Date=20240102T030405Z&X-Goog-Expires=60&X-Goog-Signature=SECRET",
            "expired at 2024-01-02 03:05:05 UTC",
        ),
        ("se=2024-01-02T03%3A04%3A05Z&sig=SECRET", "expired at 2024-01-02 03:04:05"),
        ("Expires=1704164645&Signature=SECRET", "expired at 2024-01-02 03:04:05"),
        ("se=2124-01-02T03%3A04%3A05Z&sig=SECRET", "valid until 2124-01-02 03:04:05"),
        ("se=whenever&sig=SECRET", "has expired, or its signer"),
        ("X-Amz-Date=20240102T030405Z&sig=SECRET", "has expired, or its signer"),
    ],
)
def test_a_refused_url_raises_and_says_until_when_it_worked(
    server: Server, query: str, words: str
) -> None:
    server.answers = [(403, {}, b"<Code>AccessDenied</Code>")]
    put_url = f"{server.url}/results/renders/d-1?{query}"

    with pytest.raises(DeliveryUndeliverable, match=words) as caught:
        delivers(lambda _payload: 1)(payload_for(server, bell=False, put_url=put_url))
    assert "SECRET" not in str(caught.value)


#: How Google and S3 say it; with a declaration, an indented code, more around it.
TOO_LATE = [
    (
        "<?xml version='1.0' encoding='UTF-8'?><Error><Code>ExpiredToken</Code>"
        "<Message>Invalid argument.</Message><Details>The provided token has expired. "
        "Request signature expired at: 2024-01-02T03:05:05+00:00</Details></Error>"
    ),
    (
        '<?xml version="1.0" encoding="UTF-8"?>\n<Error>\n  <Code>ExpiredToken</Code>\n'
        "  <Message>The provided token has expired.</Message>\n</Error>"
    ),
    "<Error><Code> ExpiredRequest\n</Code></Error>",
]


@pytest.mark.parametrize("body", TOO_LATE)
def test_a_url_whose_time_is_over_is_known_by_the_stores_code(
    server: Server, body: str
) -> None:
    server.answers = [(400, {}, body.encode())]
    query = "X-Goog-Date=20240102T030405Z&X-Goog-Expires=60&X-Goog-Signature=SECRET"
    payload = payload_for(
        server, bell=False, put_url=f"{server.url}/results/renders/d-1?{query}"
    )

    with pytest.raises(DeliveryUndeliverable, match="expired at 2024-01-02 03:05:05"):
        delivers(lambda _payload: 1)(payload)


def test_another_400_is_no_expiry(server: Server) -> None:
    server.answers = [
        (400, {}, b"<Error><Code>InvalidDigest</Code>ExpiredToken</Error>")
    ]

    with pytest.raises(DeliveryUndeliverable) as caught:
        delivers(lambda _payload: 1)(payload_for(server, bell=False))
    assert str(caught.value).endswith("ExpiredToken</Error>")


def test_headers_that_the_store_asks_for_are_sent(server: Server) -> None:
    headers = {"x-ms-blob-type": "BlockBlob"}
    payload = payload_for(server, bell=False, sink="abfs", put_headers=headers)

    delivers(lambda _payload: {"a": 1})(payload)

    (put,) = server.seen
    assert put.headers["x-ms-blob-type"] == "BlockBlob"
    assert put.headers["content-type"] == "application/json"


@pytest.mark.parametrize("kind", ["gs", "abfs"])
def test_no_url_and_no_obstore_is_a_failure_that_says_what_to_install(
    server: Server, kind: str
) -> None:
    payload = payload_for(server, bell=False, sink=kind, put_url=None)

    delivers(lambda _payload: 1)(payload)

    (put,) = server.seen
    assert put.path.startswith("/results/renders/d-1.failed")
    assert "Add obstore" in put.json()["error"]["message"]


def in_folder(folder: Path) -> dict[str, Any]:
    request = DeliveryRequest(
        "d-1",
        sink="file",
        bucket=str(folder),
        key="renders/d-1",
        failed_key="renders/d-1.failed.json",
    )
    return request.to_fields()


def test_a_file_appears_whole_for_others_to_read(tmp_path: Path) -> None:
    delivers(lambda _payload: b"abc" * 1000)(in_folder(tmp_path))

    (file,) = (tmp_path / "renders").iterdir()
    assert (file.name, file.read_bytes()) == ("d-1", b"abc" * 1000)
    assert file.stat().st_mode & 0o777 == 0o644


def test_a_failure_is_a_file_too(tmp_path: Path) -> None:
    @delivers
    def handle(_payload: Any) -> None:
        raise KeyError("frame")

    handle(in_folder(tmp_path))

    (file,) = (tmp_path / "renders").iterdir()
    assert file.name == "d-1.failed.json"
    assert '"type":"KeyError"' in file.read_text()


def test_a_folder_that_cannot_be_written_raises_and_leaves_nothing(
    tmp_path: Path,
) -> None:
    (tmp_path / "renders").write_text("in the way")

    with pytest.raises(DeliveryUndeliverable, match="own rights"):
        delivers(lambda _payload: 1)(in_folder(tmp_path))
    (tmp_path / "renders").unlink()
    (tmp_path / "renders" / "d-1" / "sub").mkdir(parents=True)

    with pytest.raises(DeliveryUndeliverable, match="own rights"):
        delivers(lambda _payload: 1)(in_folder(tmp_path))
    assert [path.name for path in (tmp_path / "renders").iterdir()] == ["d-1"]


def test_a_bell_that_is_not_taken_does_not_undo_the_delivery(server: Server) -> None:
    server.answers = [(200, {}, b""), (403, {}, b"no")]

    assert delivers(lambda _payload: 1)(payload_for(server, bell=True)) is None


def test_no_url_and_no_boto3_is_a_failure_that_says_what_to_install(
    server: Server,
) -> None:
    delivers(lambda _payload: 1)(payload_for(server, bell=False, put_url=None))

    assert "Add boto3" in server.seen[-1].json()["error"]["message"]


def test_no_bucket_raises(server: Server) -> None:
    with pytest.raises(DeliveryUndeliverable, match="no bucket"):
        delivers(lambda _payload: 1)(payload_for(server, bell=False, bucket=None))


def test_too_much_for_one_put_is_a_failure(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(object_store.LARGEST_PUT, "s3", 3)

    delivers(lambda _payload: b"1234")(payload_for(server, bell=True))

    assert [seen.json()["status"] for seen in server.seen] == ["failed"]


def test_a_put_that_the_store_finds_too_large_is_a_failure(server: Server) -> None:
    server.answers = [(413, {}, b"EntityTooLarge"), (200, {}, b'{"outcome": "stored"}')]

    delivers(lambda _payload: b"1234")(payload_for(server, bell=True))

    assert server.seen[1].json()["status"] == "failed"


def test_any_other_refusal_of_a_put_raises(server: Server) -> None:
    server.answers = [(404, {}, b"NoSuchBucket")]

    with pytest.raises(DeliveryUndeliverable, match="NoSuchBucket"):
        delivers(lambda _payload: 1)(payload_for(server, bell=False))


class FakeBoto3:
    """As much of boto3 as is used: the far side's environment does not have it.

    The real one is used by the tests of the sandbox.
    """

    class exceptions:  # noqa: N801 - boto3's name
        class Boto3Error(Exception):
            pass

    def __init__(self, error: Exception | None = None) -> None:
        self.stored: list[Any] = []
        self.error = error

    def client(self, _name: str) -> FakeBoto3:
        return self

    def upload_fileobj(
        self, stream: BinaryIO, bucket: str, key: str, **more: Any
    ) -> None:
        if self.error:
            raise self.error
        self.stored.append((stream.read(), bucket, key, more["ExtraArgs"]))


@pytest.fixture
def boto3(monkeypatch: pytest.MonkeyPatch) -> FakeBoto3:
    fake = FakeBoto3()
    botocore = types.ModuleType("botocore.exceptions")
    botocore.BotoCoreError = botocore.ClientError = OSError  # type: ignore[attr-defined]
    exceptions = types.ModuleType("boto3.exceptions")
    exceptions.Boto3Error = FakeBoto3.exceptions.Boto3Error  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "botocore.exceptions", botocore)
    monkeypatch.setitem(sys.modules, "boto3.exceptions", exceptions)
    monkeypatch.setitem(sys.modules, "boto3", fake)  # type: ignore[arg-type]
    return fake


def test_boto3_is_used_where_there_is_no_url(server: Server, boto3: FakeBoto3) -> None:
    delivers(lambda _payload: b"abc")(payload_for(server, bell=False, put_url=None))

    kind = {"ContentType": "application/octet-stream"}
    assert boto3.stored == [(b"abc", "results", "renders/d-1", kind)]


@pytest.mark.parametrize(
    ("status", "body"), [(403, "expired"), *((400, body) for body in TOO_LATE)]
)
def test_boto3_is_used_where_the_url_has_expired(
    server: Server, boto3: FakeBoto3, status: int, body: str
) -> None:
    server.answers = [(status, {}, body.encode())]

    delivers(lambda _payload: b"abc")(payload_for(server, bell=False))

    assert boto3.stored[0][0] == b"abc"


def test_an_error_of_boto3_raises_with_its_words(
    server: Server, boto3: FakeBoto3
) -> None:
    boto3.error = OSError("no credentials")

    with pytest.raises(DeliveryUndeliverable, match="no credentials"):
        delivers(lambda _payload: b"abc")(payload_for(server, bell=False, put_url=None))


def test_a_store_that_hangs_up_on_a_large_body_is_not_tried_for_long(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It refuses an expired URL at once, and the answer is lost in what is sent."""
    monkeypatch.setenv("RUNQY_DELIVERY_RETRY_FOR", "300")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        hung_up = []

        def hang_up() -> None:
            connection, _ = listener.accept()
            connection.recv(1000)
            answer = b"HTTP/1.1 403 Forbidden\r\nConnection: close\r\n\r\n"
            connection.sendall(answer)
            connection.close()
            hung_up.append(True)

        thread = threading.Thread(target=hang_up)
        thread.start()
        payload = payload_for(server, bell=False)
        port = listener.getsockname()[1]
        payload["delivery"]["put_url"] = (
            f"http://127.0.0.1:{port}/b/k?se=2024-01-02T03%3A04%3A05Z&sig=SECRET"
        )
        delivers(lambda _payload: b"x" * 50_000_000)(payload)
        thread.join(10)
    failure = server.seen[-1].json()
    assert "expired at 2024-01-02" in failure["error"]["message"]
    assert hung_up == [True]
