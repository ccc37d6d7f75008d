"""Failures of a delivery reach Airflow by any channel that the request names."""

from __future__ import annotations

import importlib.metadata
import json
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from runqy_delivery import DeliveryRequest, DeliveryUndeliverable, delivers
from tests.delivery.helpers import STORED

if TYPE_CHECKING:
    from pathlib import Path

    from tests.delivery.helpers import HttpServer


TABLE = {
    "name": "tasks",
    "id": "id",
    "status": "status",
    "result": "result",
    "completed_at": "completed_at",
}


AMQP = {"exchange": "", "routing_key": "results"}


def failure_of(server: HttpServer, handle: Any, **fields: Any) -> dict[str, Any]:
    """Run a handler, and return the error that the failure channel received."""
    request = DeliveryRequest("d-1", failure_url=f"{server.url}/failures", **fields)
    delivers(handle)(request.to_fields())
    (post,) = server.requests
    delivery: dict[str, Any] = post.json()
    assert (post.path, delivery["status"]) == ("/failures", "failed")
    return dict(delivery["error"])


@pytest.mark.parametrize(
    ("fields", "environment", "messages"),
    [
        (
            {"sink": "sql", "table": TABLE},
            {},
            "RUNQY_DELIVERY_DATABASE_URL is not set",
        ),
        (
            {"sink": "sql", "table": TABLE},
            {"RUNQY_DELIVERY_DATABASE_URL": "nodatabase://host/x"},
            "No driver|is not installed",
        ),
        (
            {"sink": "sql", "table": TABLE},
            {"RUNQY_DELIVERY_DATABASE_URL": "sqlite:///:memory:"},
            "no such table",
        ),
        (
            {"sink": "sql", "table": {**TABLE, "name": "a b"}},
            {},
            "not a valid SQL name",
        ),
        (
            {"sink": "amqp", "amqp": AMQP},
            {},
            "RUNQY_DELIVERY_AMQP_URL is not set|pika is not installed",
        ),
        (
            {"sink": "file", "bucket": "/proc/nowhere", "key": "k"},
            {},
            "/proc/nowhere/k could not be written",
        ),
    ],
)
def test_delivery_impossible_is_a_failure_with_reason(
    server: HttpServer,
    monkeypatch: pytest.MonkeyPatch,
    fields: dict[str, Any],
    environment: dict[str, str],
    messages: str,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    if fields["sink"] == "file":
        fields = {**fields, "webhook_url": f"{server.url}/failures"}
    error = failure_of(server, lambda _payload: 1, **fields)

    assert error["type"] == "DeliveryImpossible"
    assert any(text in error["message"] for text in messages.split("|"))


def test_failure_channel_success_is_not_sent(
    server: HttpServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    database = tmp_path / "results.db"
    with closing(sqlite3.connect(database)) as connection:
        connection.execute(
            "CREATE TABLE tasks (id text, status text, result text, completed_at text)"
        )
    monkeypatch.setenv("RUNQY_DELIVERY_DATABASE_URL", f"sqlite:///{database}")
    request = DeliveryRequest(
        "d-1", sink="sql", table=TABLE, failure_url=f"{server.url}/failures"
    )

    delivers(lambda _payload: 1)(request.to_fields())

    assert server.requests == []


def test_failure_channel_rejected_failure_raises_first_error(
    server: HttpServer,
) -> None:
    server.responses = [(403, {}, b'{"error": "no"}')]
    request = DeliveryRequest(
        "d-1", sink="sql", table=TABLE, failure_url=f"{server.url}/failures"
    )

    with pytest.raises(DeliveryUndeliverable, match="DATABASE_URL is not set"):
        delivers(lambda _payload: 1)(request.to_fields())


def test_signed_url_expired_credentials_are_a_failure_by_webhook(
    server: HttpServer,
) -> None:
    server.responses = [
        (400, {}, b"<Error><Code>ExpiredToken</Code></Error>"),
        (200, {}, STORED),
    ]
    request = DeliveryRequest(
        "d-1",
        sink="s3",
        bucket="b",
        key="k",
        put_url=f"{server.url}/b/k?X-Amz-Signature=SECRET",
        webhook_url=f"{server.url}/hook",
    )

    delivers(lambda _payload: 1)(request.to_fields())

    put, post = server.requests
    assert (put.method, post.path) == ("PUT", "/hook")
    assert "ExpiredToken" in post.json()["error"]["message"]
    assert "SECRET" not in post.body.decode()


PACKAGE = """
from pathlib import Path

def deliver(request, content):
    target = Path(request.url)
    if not target.parent.is_dir():
        raise FileNotFoundError(target.parent)
    busy = target.with_name("busy")
    if busy.exists():
        busy.unlink()
        raise ConnectionError("busy")
    target.write_bytes(content.to_text(request))
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install a package that delivers to a sink of its own."""
    (tmp_path / "shelf_of_files.py").write_text(PACKAGE)
    about = tmp_path / "shelf_of_files-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: shelf\nVersion: 1\n")
    points = "shelf = shelf_of_files:deliver\nbroken = shelf_of_files:missing\n"
    (about / "entry_points.txt").write_text(f"[runqy_delivery.sinks]\n{points}")
    monkeypatch.syspath_prepend(tmp_path)


def shelf(path: Path, handle: Any, **fields: Any) -> Any:
    """Run a handler whose sink is a file, and return what the file has."""
    request = DeliveryRequest("d-1", sink="shelf", url=str(path), **fields)
    delivers(handle)(request.to_fields())
    return json.loads(path.read_bytes())


@pytest.mark.usefixtures("package")
def test_delivers_sink_of_other_package_gets_result_and_failure(tmp_path: Path) -> None:
    (tmp_path / "busy").touch()  # the first try fails

    assert shelf(tmp_path / "json", lambda _payload: {"n": 1}) == {"n": 1}
    binary = shelf(tmp_path / "bytes", lambda _payload: b"\0")
    assert (binary["task_id"], binary["encoding"]) == ("d-1", "base64")
    failure = shelf(tmp_path / "failure", lambda _payload: 1 / 0)
    assert (failure["status"], failure["error"]["type"]) == (
        "failed",
        "ZeroDivisionError",
    )


@pytest.mark.usefixtures("package")
def test_delivers_sink_of_other_package_notifies_the_webhook(
    tmp_path: Path, server: HttpServer
) -> None:
    path = tmp_path / "json"

    shelf(path, lambda _payload: 1, webhook_url=f"{server.url}/hook")

    (post,) = server.requests
    assert post.json()["result_url"] == str(path)


@pytest.mark.usefixtures("package")
def test_delivers_sink_of_other_package_too_large_is_a_failure(tmp_path: Path) -> None:
    failure = shelf(tmp_path / "json", lambda _payload: "x" * 9000, max_bytes=8000)

    assert failure["error"]["type"] == "ResultRefused"


@pytest.mark.usefixtures("package")
def test_delivers_sink_of_other_package_fails_reaches_failure_channel(
    tmp_path: Path, server: HttpServer
) -> None:
    url = str(tmp_path / "missing" / "json")

    error = failure_of(server, lambda _payload: 1, sink="shelf", url=url)

    assert error["type"] == "DeliveryImpossible"
    assert "FileNotFoundError" in error["message"]


@pytest.mark.usefixtures("package")
def test_delivers_sink_of_other_package_cannot_be_imported_reaches_failure_channel(
    server: HttpServer,
) -> None:
    error = failure_of(server, lambda _payload: 1, sink="broken", url="x")

    assert error["type"] == "DeliveryImpossible"
    assert "shelf_of_files:missing" in error["message"]


def test_delivers_own_sink_looks_at_no_package(
    server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(importlib.metadata, "entry_points")
    request = DeliveryRequest("d-1", webhook_url=f"{server.url}/hook")

    delivers(lambda _payload: 1)(request.to_fields())

    assert [post.json()["result"] for post in server.requests] == [1]


def test_delivers_sink_of_no_package_names_the_entry_point(server: HttpServer) -> None:
    error = failure_of(server, lambda _payload: 1, sink="shelf", url="x")

    assert error["type"] == "ResultRefused"
    assert "runqy_delivery.sinks" in error["message"]


@pytest.mark.usefixtures("package")
def test_delivers_sink_of_other_package_and_no_channel_raises(tmp_path: Path) -> None:
    request = DeliveryRequest("d-1", sink="shelf", url=str(tmp_path / "no" / "json"))

    with pytest.raises(DeliveryUndeliverable, match="shelf"):
        delivers(lambda _payload: 1)(request.to_fields())
