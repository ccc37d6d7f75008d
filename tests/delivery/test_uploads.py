"""Uploads with the worker's own credentials: by boto3, and to a shared folder."""

from __future__ import annotations

import sys
import types
from typing import TYPE_CHECKING, Any, BinaryIO

import pytest

from runqy_delivery import DeliveryRequest, DeliveryUndeliverable, delivers
from tests.delivery.helpers import EXPIRED_BODIES, s3_payload

if TYPE_CHECKING:
    from pathlib import Path

    from tests.delivery.helpers import HttpServer


def folder_payload(folder: Path) -> dict[str, Any]:
    """Return the payload fields of a delivery request to a shared folder."""
    request = DeliveryRequest(
        "d-1",
        sink="file",
        bucket=str(folder),
        key="renders/d-1",
        failed_key="renders/d-1.failed.json",
    )
    return request.to_fields()


def test_to_folder_file_is_whole_and_readable(tmp_path: Path) -> None:
    delivers(lambda _payload: b"abc" * 1000)(folder_payload(tmp_path))

    (file,) = (tmp_path / "renders").iterdir()
    assert (file.name, file.read_bytes()) == ("d-1", b"abc" * 1000)
    assert file.stat().st_mode & 0o777 == 0o644


def test_to_folder_failure_is_a_file(tmp_path: Path) -> None:
    @delivers
    def handle(_payload: Any) -> None:
        raise KeyError("frame")

    handle(folder_payload(tmp_path))

    (file,) = (tmp_path / "renders").iterdir()
    assert file.name == "d-1.failed.json"
    assert '"type":"KeyError"' in file.read_text()


def test_to_folder_unwritable_folder_raises_and_leaves_nothing(
    tmp_path: Path,
) -> None:
    (tmp_path / "renders").write_text("in the way")

    with pytest.raises(DeliveryUndeliverable, match="own credentials"):
        delivers(lambda _payload: 1)(folder_payload(tmp_path))
    (tmp_path / "renders").unlink()
    (tmp_path / "renders" / "d-1" / "sub").mkdir(parents=True)

    with pytest.raises(DeliveryUndeliverable, match="own credentials"):
        delivers(lambda _payload: 1)(folder_payload(tmp_path))
    assert [path.name for path in (tmp_path / "renders").iterdir()] == ["d-1"]


class FakeBoto3:
    """The part of boto3 that is used: it is not installed in every environment.

    The integration tests of the provider use the real one.
    """

    def __init__(self, error: Exception | None = None) -> None:
        self.stored: list[Any] = []
        self.error = error

    def client(self, _name: str) -> FakeBoto3:
        return self

    def upload_fileobj(
        self, stream: BinaryIO, bucket: str, key: str, **extra: Any
    ) -> None:
        if self.error:
            raise self.error
        self.stored.append((stream.read(), bucket, key, extra["ExtraArgs"]))


@pytest.fixture
def boto3(monkeypatch: pytest.MonkeyPatch) -> FakeBoto3:
    """Install a fake boto3, which records the uploads."""
    fake = FakeBoto3()
    botocore_errors = types.SimpleNamespace(BotoCoreError=OSError, ClientError=OSError)
    boto3_errors = types.SimpleNamespace(Boto3Error=RuntimeError)
    monkeypatch.setitem(sys.modules, "botocore.exceptions", botocore_errors)
    monkeypatch.setitem(sys.modules, "boto3.exceptions", boto3_errors)
    monkeypatch.setitem(sys.modules, "boto3", fake)
    return fake


def test_by_boto3_is_used_without_url(server: HttpServer, boto3: FakeBoto3) -> None:
    delivers(lambda _payload: b"abc")(s3_payload(server, webhook=False, put_url=None))

    extra = {"ContentType": "application/octet-stream"}
    assert boto3.stored == [(b"abc", "results", "renders/d-1", extra)]


@pytest.mark.parametrize(
    ("status", "body"), [(403, "expired"), *((400, body) for body in EXPIRED_BODIES)]
)
def test_by_boto3_is_used_with_expired_url(
    server: HttpServer, boto3: FakeBoto3, status: int, body: str
) -> None:
    server.responses = [(status, {}, body.encode())]

    delivers(lambda _payload: b"abc")(s3_payload(server, webhook=False))

    assert boto3.stored[0][0] == b"abc"


def test_by_boto3_error_raises_with_its_message(
    server: HttpServer, boto3: FakeBoto3
) -> None:
    boto3.error = OSError("no credentials")

    with pytest.raises(DeliveryUndeliverable, match="no credentials"):
        delivers(lambda _payload: b"abc")(
            s3_payload(server, webhook=False, put_url=None)
        )
