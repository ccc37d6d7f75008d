"""Results of every kind: how they are converted, and when they are refused."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from runqy_delivery import Result
from tests.delivery.helpers import deliver

if TYPE_CHECKING:
    from tests.delivery.helpers import HttpServer


def test_delivery_of_bytes_is_base64_with_content_type(server: HttpServer) -> None:
    delivery = deliver(
        server, Result(b"\x00\xff", content_type="image/png", metadata={"w": 2})
    )

    assert base64.b64decode(delivery.pop("result")) == b"\x00\xff"
    expected = {
        "version": 1,
        "task_id": "d-1",
        "status": "completed",
        "encoding": "base64",
        "content_type": "image/png",
        "size": 2,
        "metadata": {"w": 2},
    }
    assert expected == delivery


def test_content_of_path_has_guessed_content_type(
    server: HttpServer, tmp_path: Path
) -> None:
    image = tmp_path / "image.png"
    image.write_bytes(b"png!")

    delivery = deliver(server, image)

    assert base64.b64decode(delivery["result"]) == b"png!"
    assert delivery["content_type"] == "image/png"


def test_content_of_string_with_content_type_is_bytes(server: HttpServer) -> None:
    delivery = deliver(server, Result("a <b>ö</b>", content_type="text/html"))

    assert delivery["content_type"] == "text/html"
    assert base64.b64decode(delivery["result"]).decode() == "a <b>ö</b>"


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (object(), "result is of the type object, which JSON does not have"),
        (float("nan"), "result is nan, and JSON has no such number"),
        (Path("/nowhere/at/all"), "cannot be read"),
        (Result(1, metadata={"x": [b"y"]}), 'metadata["x"][0] is of the type bytes'),
    ],
)
def test_content_of_unserializable_result_is_a_failure(
    server: HttpServer, returned: Any, message: str
) -> None:
    delivery = deliver(server, returned)

    assert delivery["status"] == "failed"
    assert message in delivery["error"]["message"]


@pytest.mark.parametrize(
    "data",
    [
        b"\xff",
        b"{",
        b"",
        b'{"loss": NaN}',
        b"[1e999]",
        b"\xef\xbb\xbf[]",
        '["x"]'.encode("utf-16"),
    ],
)
def test_content_of_invalid_json_bytes_is_a_failure(
    server: HttpServer, data: bytes
) -> None:
    delivery = deliver(server, Result(data, content_type="application/json"))

    assert delivery["status"] == "failed"
    assert "are not valid JSON" in delivery["error"]["message"]


@pytest.mark.parametrize("returned", ["x" * 3000, b"x" * 2000])
def test_delivery_of_result_over_max_bytes_suggests_object_store(
    server: HttpServer, returned: Any
) -> None:
    delivery = deliver(server, returned, max_bytes=3000)

    assert delivery["status"] == "failed"
    assert "s3://bucket/prefix" in delivery["error"]["message"]
