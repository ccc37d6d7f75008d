"""Each rejected delivery is counted and told with its reason, if its URL is valid."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

import httpx
from redis import Redis

from runqy_provider.inbox import keys
from runqy_provider.receiver.app import create_app
from tests.integration.receiver.constants import GOOD, LIMITS, Client

if TYPE_CHECKING:
    from collections.abc import Callable

    from runqy_provider.receiver.connections import CallbackConnection
    from runqy_provider.redis_connection import RedisConnection

#: Another final delivery of the same job.
OTHER = b'{"task_id": "d", "status": "completed", "result": "other"}'


async def test_receiver_rejections_are_counted_by_reason(
    connections: dict[str, CallbackConnection], url: Callable[..., str]
) -> None:
    async def find(conn_id: str, *, refresh: bool = False) -> CallbackConnection | None:
        return connections.get(conn_id)

    reasons: list[str] = []
    app = create_app(find, LIMITS, reasons.append)
    async with (
        app.router.lifespan_context(app),
        Client(transport=httpx.ASGITransport(app), base_url="http://r") as client,
    ):
        await client.post(url(), content=GOOD)
        await client.post(url(), content=OTHER)
        await client.post(url(secret="f" * 32), content=GOOD)
        await client.post(url(), content=b"not json")
        await client.post(url(conn="unknown"), content=GOOD)

    assert reasons == ["conflict", "bad token or expired", "not a delivery"]


def told(redis_settings: RedisConnection, conn_id: str) -> dict[str, str]:
    """Return what waiting tasks were told, by delivery id."""
    prefix = keys.refused(conn_id, "")
    with Redis(**dict(redis_settings.options)) as redis:
        names = [key.decode() for key in redis.keys(f"{prefix}*")]
        return {name.removeprefix(prefix): redis.get(name).decode() for name in names}


async def test_receiver_refusal_tells_the_waiting_task_where_the_token_is_valid(
    connections: dict[str, CallbackConnection],
    url: Callable[..., str],
    redis_settings: RedisConnection,
    conn_id: str,
) -> None:
    async def find(conn_id: str, *, refresh: bool = False) -> CallbackConnection | None:
        return connections.get(conn_id)

    app = create_app(find, LIMITS)
    async with (
        app.router.lifespan_context(app),
        Client(transport=httpx.ASGITransport(app), base_url="http://r") as client,
    ):
        bad = b'{"task_id": "d", "status": "done"}'
        await client.post(url("valid"), content=bad)
        await client.post(url("large"), content=b"x" * 3000)
        await client.post(url("forged", secret="f" * 32), content=bad)
        await client.post(url("other").replace("/other?", "/changed?"), content=bad)
        await client.post(url("expired", seconds=-60), content=bad)
        await client.post(url("check-1"), content=bad)

    found = told(redis_settings, conn_id)
    assert set(found) == {"valid", "large"}
    assert "status is 'done'" in found["valid"]
    assert "2000 bytes" in found["large"]


async def test_receiver_compressed_body_message_names_content_encoding(
    client: Client, url: Callable[..., str]
) -> None:
    headers = {"Content-Encoding": "gzip"}
    response = await client.post(url(), content=gzip.compress(GOOD), headers=headers)

    assert response.status_code == 400
    assert "Content-Encoding 'gzip'" in response.json()["error"]


async def test_receiver_form_message_names_content_type(
    client: Client, url: Callable[..., str]
) -> None:
    response = await client.post(url(), data={"task_id": "d", "status": "completed"})

    assert response.status_code == 400
    assert "not a form" in response.json()["error"]
