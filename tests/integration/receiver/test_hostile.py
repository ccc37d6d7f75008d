"""Hostile requests to a receiver process: no 5xx, nothing stored, no crash."""

from __future__ import annotations

import json
import secrets
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis

from devtools.receiver import running_receiver
from runqy_provider.inbox import callback_url, keys

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


CONN_ID = f"hostile-{secrets.token_hex(4)}"
SECRET = secrets.token_hex(16)
MAX_BODY = 100_000
SERVER_ERRORS = range(500, 600)


_TEXT = {"schema": {"type": "string"}, "required": True}

#: What a receiver accepts, as far as strangers need to know.
SCHEMA = schemathesis.openapi.from_dict(
    {
        "openapi": "3.1.0",
        "info": {"title": "runqy receiver", "version": "1"},
        "paths": {
            "/{conn_id}/v1/deliveries/{delivery_id}": {
                "post": {
                    "parameters": [
                        {"name": "conn_id", "in": "path", **_TEXT},
                        {"name": "delivery_id", "in": "path", **_TEXT},
                        {"name": "expires", "in": "query", **_TEXT},
                        {"name": "token", "in": "query", **_TEXT},
                    ],
                    "requestBody": {"content": {"application/json": {"schema": {}}}},
                    "responses": {"200": {"description": "stored"}},
                }
            },
            "/health": {"get": {"responses": {"200": {"description": "healthy"}}}},
        },
    }
)

#: Shared fixtures are safe: the receiver stores nothing of a refused request.
many_examples = settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(scope="module")
def receiver(redis_url: str) -> Iterator[str]:
    """A receiver in a process of its own."""
    arguments = ("--conn-id", CONN_ID, "--max-body", str(MAX_BODY))
    with running_receiver(redis_url, SECRET, *arguments) as receiver:
        yield receiver.url
        # After all requests of this module it still accepts a valid delivery.
        body = b'{"task_id": "valid", "result": 1}'
        assert receiver.process.poll() is None
        url = address(receiver.url, "valid")
        assert httpx.post(url, content=body).status_code == 200


@pytest.fixture(scope="module")
def stored(redis_url: str) -> Iterator[Callable[[], list[bytes]]]:
    """Return the keys of this connection in the inbox, without records.

    One text for each delivery id with a valid URL, which says why a delivery was
    refused, is a record, too.
    """
    records = [keys.accepted(CONN_ID), keys.rejected(CONN_ID), keys.bad_url(CONN_ID)]

    def stored() -> list[bytes]:
        found: list[bytes] = redis.keys(f"{keys.PREFIX}:{CONN_ID}:*")
        names = [key for key in found if b":refused:" not in key]
        return [key for key in names if key.decode() not in records]

    with Redis.from_url(redis_url) as redis:
        yield stored


def address(url: str, delivery_id: str = "d") -> str:
    expires = int(time.time()) + 600
    return callback_url.url(url, SECRET, CONN_ID, delivery_id, expires)


@SCHEMA.parametrize()
@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
def test_receiver_any_openapi_request_is_no_server_error(
    case: Any, receiver: str, stored: Callable[[], list[bytes]]
) -> None:
    response = case.call(base_url=receiver)
    assert response.status_code not in SERVER_ERRORS
    assert stored() == []


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)
deliveries = st.fixed_dictionaries(
    {},
    optional={
        name: json_values | st.sampled_from(("d", "completed", "progress", 1, "base64"))
        for name in (
            "task_id",
            "status",
            "result",
            "error",
            "result_url",
            "content_type",
            "encoding",
            "size",
            "metadata",
            "fraction",
            "text",
            "version",
        )
    },
)


@many_examples
@given(body=deliveries)
def test_receiver_any_delivery_is_accepted_or_refused(receiver: str, body: Any) -> None:
    # A callback URL for each, so that none of them is a repeated delivery.
    delivery_id = f"fuzz-{secrets.token_hex(8)}"
    if body.get("task_id") == "d":
        body = {**body, "task_id": delivery_id}
    with httpx.Client() as client:
        response = client.post(
            address(receiver, delivery_id), content=json.dumps(body).encode()
        )
    assert response.status_code in (200, 202, 400)


@many_examples
@given(body=st.binary(max_size=5000))
def test_receiver_any_bytes_store_nothing(
    receiver: str, stored: Callable[[], list[bytes]], body: bytes
) -> None:
    before = set(stored())
    response = httpx.post(address(receiver), content=body)
    assert response.status_code == 400
    assert set(stored()) == before


def raw(receiver: str, data: bytes) -> bytes:
    """Send bytes, close the sending side, and return the response."""
    parts = urlsplit(receiver)
    with socket.create_connection((parts.hostname, parts.port), timeout=10) as sock:
        with suppress(ConnectionError):
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
        response = b""
        with suppress(ConnectionError):
            while block := sock.recv(65536):
                response += block
    return response


def status_of(response: bytes) -> int | None:
    return int(response.split()[1]) if response.startswith(b"HTTP/") else None


fragments = st.lists(
    st.binary(max_size=200)
    | st.sampled_from(
        [
            b"POST /c/v1/deliveries/d HTTP/1.1\r\n",
            b"GET / HTTP/1.1\r\n",
            b"Host: r\r\n",
            b"Content-Length: 99999999999999999999\r\n",
            b"Content-Length: -1\r\n",
            b"Transfer-Encoding: chunked\r\n",
            b"Expect: 100-continue\r\n",
            b"ffffffffffffffff\r\n",
            b"\r\n",
            b"\x00\xff",
        ]
    ),
    max_size=12,
).map(b"".join)


@many_examples
@given(data=fragments)
def test_receiver_any_raw_bytes_are_no_server_error(
    receiver: str, stored: Callable[[], list[bytes]], data: bytes
) -> None:
    before = set(stored())
    assert status_of(raw(receiver, data)) not in SERVER_ERRORS
    assert set(stored()) == before


BOMBS = {
    "a huge header": b"GET /health HTTP/1.1\r\nHost: r\r\nX: " + b"x" * 5_000_000,
    "very many headers": b"GET /health HTTP/1.1\r\nHost: r\r\n"
    + b"".join(b"X-%d: y\r\n" % n for n in range(100_000))
    + b"\r\n",
    "a huge path": b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1\r\nHost: r\r\n\r\n",
    "lengths that disagree": b"POST /health HTTP/1.1\r\nHost: r\r\n"
    b"Content-Length: 5\r\nContent-Length: 50\r\n\r\nhello",
    "a body that is cut off": b"POST /c/v1/deliveries/d HTTP/1.1\r\nHost: r\r\n"
    b"Content-Length: 500\r\n\r\nhello",
}


@pytest.mark.parametrize("name", BOMBS)
def test_receiver_oversized_request_is_refused(
    receiver: str, stored: Callable[[], list[bytes]], name: str
) -> None:
    before = set(stored())
    response = raw(receiver, BOMBS[name])
    # None: it closed the connection. 200: many headers before a valid request.
    assert status_of(response) in (None, 200, 400, 403, 404, 405, 414, 431)
    assert set(stored()) == before


@pytest.mark.parametrize(
    "body",
    [
        b'{"task_id":"d","result":' + b"[" * 40_000 + b"]" * 40_000 + b"}",
        b'{"task_id":"d","result":' + b"9" * 90_000 + b"}",
        b'{"task_id":"d","result":1e99999}',
        b'{"task_id":"d","metadata":' + b'{"a":' * 10_000 + b"1" + b"}" * 10_001,
        b'\xff\xfe{"task_id":"d"}',
        b'{"task_id":"d","result":NaN}',
    ],
)
def test_receiver_json_bomb_is_refused(
    receiver: str, stored: Callable[[], list[bytes]], body: bytes
) -> None:
    before = set(stored())
    response = httpx.post(address(receiver), content=body)
    assert response.status_code == 400, response.text[:200]
    assert set(stored()) == before


def test_receiver_replayed_delivery_stores_nothing_new(
    receiver: str, stored: Callable[[], list[bytes]]
) -> None:
    url, body = address(receiver, "replayed"), b'{"task_id": "replayed", "result": 1}'
    assert httpx.post(url, content=body).json() == {"outcome": "stored"}
    before = set(stored())
    assert httpx.post(url, content=body).json() == {"outcome": "repeated"}
    assert httpx.post(url, content=body[:-2] + b"2}").status_code == 409
    assert set(stored()) == before


def test_receiver_callback_url_of_other_delivery_is_refused(receiver: str) -> None:
    url = address(receiver, "one").replace("/one?", "/two?")
    body = b'{"task_id": "two", "result": 1}'
    assert httpx.post(url, content=body).status_code == 403


def test_receiver_slow_body_does_not_delay_others(receiver: str) -> None:
    """Twenty slow bodies with a valid callback URL are being received meanwhile."""
    parts = urlsplit(address(receiver, "slow"))
    head = (
        f"POST {parts.path}?{parts.query} HTTP/1.1\r\nHost: r\r\n"
        "Content-Length: 1000\r\n\r\n{"
    ).encode()
    slow = []
    try:
        for _ in range(20):
            sock = socket.create_connection((parts.hostname, parts.port))
            sock.sendall(head)
            slow.append(sock)
        body = b'{"task_id": "quick", "result": 1}'
        began = time.monotonic()
        response = httpx.post(address(receiver, "quick"), content=body)
        assert response.status_code == 200
        assert time.monotonic() - began < 5
    finally:
        for sock in slow:
            sock.close()
