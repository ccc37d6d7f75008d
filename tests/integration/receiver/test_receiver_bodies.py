"""Bodies that are invalid, too large or too slow, and too many requests at once."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING

import httpx
import pytest

from runqy_delivery import Delivery
from runqy_provider.receiver.app import create_app
from runqy_provider.receiver.connections import CallbackConnection
from tests.integration.receiver.constants import (
    GOOD,
    LIMITS,
    SECRET,
    Client,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from runqy_provider.redis_connection import RedisConnection


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"not json", "not JSON"),
        (b"", "not JSON"),
        (b"[1, 2]", "JSON object"),
        (b'{"task_id": "other", "result": 1}', "'other'; this address is for 'd'"),
        (b'{"task_id": "d", "status": "done"}', "status is 'done'"),
        (b'{"task_id": "d", "result": 1e999}', "too large"),
        (b'{"task_id": "d", "result": ' + b"[" * 1500, "not JSON"),
    ],
)
async def test_receiver_invalid_body_returns_400_with_reason(
    client: Client,
    url: Callable[..., str],
    stored: Callable[[], list[bytes]],
    body: bytes,
    message: str,
) -> None:
    response = await client.post(url(), content=body)

    assert response.status_code == 400
    assert message in response.json()["error"]
    assert stored() == []


@pytest.mark.parametrize("declared", [True, False])
async def test_receiver_body_too_large_returns_413(
    client: Client,
    url: Callable[..., str],
    stored: Callable[[], list[bytes]],
    *,
    declared: bool,
) -> None:
    sent = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(100):
            sent += 1000
            yield b"x" * 1000

    content = b"x" * 4001 if declared else chunks()
    response = await client.post(url(), content=content)

    assert response.status_code == 413
    assert "object store" in response.json()["error"]
    assert sent <= 5000 or declared
    assert stored() == []


async def test_receiver_body_slightly_too_large_is_read_to_its_end(
    client: Client, url: Callable[..., str], stored: Callable[[], list[bytes]]
) -> None:
    """The sender receives the response, and not a connection error."""
    sent = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(3):
            sent += 1000
            yield b"x" * 1000

    response = await client.post(url(), content=chunks())

    assert (response.status_code, sent) == (413, 3000)
    assert stored() == []


async def test_receiver_endless_body_is_refused(
    client: Client, url: Callable[..., str], stored: Callable[[], list[bytes]]
) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    response = await client.post(url(), content=chunks())

    assert response.status_code == 408
    assert stored() == []


async def test_receiver_slow_body_is_refused_early(
    client: Client, url: Callable[..., str], stored: Callable[[], list[bytes]]
) -> None:
    """The body arrives steadily, but below the lowest rate that is accepted."""

    async def chunks() -> AsyncIterator[bytes]:
        yield b"{"
        while True:
            await asyncio.sleep(0.01)
            yield b" "

    began = time.monotonic()
    response = await client.post(url(), content=chunks())

    assert response.status_code == 408
    assert time.monotonic() - began < LIMITS.body_seconds
    assert stored() == []


async def test_receiver_requests_for_one_delivery_are_limited(
    client: Client, url: Callable[..., str]
) -> None:
    reading, gate = asyncio.Semaphore(0), asyncio.Event()

    async def chunks() -> AsyncIterator[bytes]:
        reading.release()
        await gate.wait()
        yield b""

    slow = [
        asyncio.create_task(client.post(url(), content=chunks()))
        for _ in range(LIMITS.max_in_flight_per_delivery)
    ]
    for _ in slow:
        await reading.acquire()
    same = await client.post(url(), content=GOOD)
    body = Delivery("another", result=1).to_json()
    other = await client.post(url("another"), content=body)
    gate.set()
    await asyncio.gather(*slow)

    assert (same.status_code, other.status_code) == (429, 200)


async def test_receiver_too_many_requests_return_429(
    client: Client, url: Callable[..., str]
) -> None:
    reading = asyncio.Semaphore(0)

    async def chunks() -> AsyncIterator[bytes]:
        reading.release()
        await asyncio.Event().wait()
        yield b""

    slow = [
        asyncio.create_task(client.post(url(f"d{n}"), content=chunks()))
        for n in range(LIMITS.max_in_flight)
    ]
    for _ in slow:
        await reading.acquire()
    response = await client.post(url(), content=GOOD)
    await asyncio.gather(*slow)

    assert response.status_code == 429
    assert int(response.headers["Retry-After"]) > 0
    assert (await client.post(url(), content=GOOD)).status_code == 200


async def test_receiver_large_body_is_parsed_in_a_thread(
    redis_settings: RedisConnection, conn_id: str, url: Callable[..., str]
) -> None:
    connection = CallbackConnection(conn_id, redis_settings, (SECRET,))

    async def find(_conn_id: str, *, refresh: bool = False) -> CallbackConnection:
        return connection

    app = create_app(find)
    body = Delivery("d", result="x" * 1_000_000).to_json()
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        Client(transport=transport, base_url="http://r") as client,
    ):
        assert (await client.post(url(), content=body)).status_code == 200
        bad = await client.post(url(), content=body[:-1])
        assert bad.status_code == 400


async def test_receiver_deeply_nested_json_is_refused(
    redis_settings: RedisConnection,
    conn_id: str,
    url: Callable[..., str],
    stored: Callable[[], list[bytes]],
) -> None:
    """The limit does not depend on the depth that Python can parse."""
    connection = CallbackConnection(conn_id, redis_settings, (SECRET,))

    async def find(_conn_id: str, *, refresh: bool = False) -> CallbackConnection:
        return connection

    app = create_app(find)
    depth = 200_000
    body = b'{"task_id": "d", "result": ' + b"[" * depth + b"]" * depth + b"}"
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        Client(transport=transport, base_url="http://r") as client,
    ):
        response = await client.post(url(), content=body)

    assert response.status_code == 400
    assert stored() == []


async def test_receiver_body_with_many_containers_is_not_parsed(
    client: Client,
    url: Callable[..., str],
    stored: Callable[[], list[bytes]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Parsed, lists and objects take fifty times the memory of their text."""
    monkeypatch.setattr("runqy_provider.receiver.app.MOST_CONTAINERS", 20)
    body = json.dumps({"task_id": "d", "result": [{} for _ in range(30)]}).encode()
    response = await client.post(url(), content=body)

    assert response.status_code == 400
    assert "more than 20 lists and objects" in response.json()["error"]
    assert stored() == []
