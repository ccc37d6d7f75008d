"""A receiver in this process, and the callback URLs of its connection."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import httpx
import pytest
from redis import Redis

from runqy_provider.errors import Misconfigured
from runqy_provider.inbox import callback_url, keys
from runqy_provider.receiver.app import create_app
from runqy_provider.receiver.connections import CallbackConnection
from tests.integration.receiver.constants import (
    LIMITS,
    OLD_SECRET,
    SECRET,
    Client,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from runqy_provider.redis_connection import RedisConnection


@pytest.fixture
def connections(
    redis_settings: RedisConnection, conn_id: str
) -> dict[str, CallbackConnection]:
    """The connections that the receiver knows; a test may replace them."""
    return {conn_id: CallbackConnection(conn_id, redis_settings, (SECRET, OLD_SECRET))}


@pytest.fixture
async def client(connections: dict[str, CallbackConnection]) -> AsyncIterator[Client]:
    """A client of the receiver; the connection ``broken`` is misconfigured."""

    async def find(conn_id: str, *, refresh: bool = False) -> CallbackConnection | None:
        if conn_id == "broken":
            raise Misconfigured("its Redis connection does not exist")
        return connections.get(conn_id)

    app = create_app(find, LIMITS)
    async with (
        app.router.lifespan_context(app),
        Client(transport=httpx.ASGITransport(app), base_url="http://r") as client,
    ):
        yield client


@pytest.fixture
def url(conn_id: str) -> Callable[..., str]:
    """Make a callback URL."""

    def url(
        delivery_id: str = "d",
        *,
        conn: str = conn_id,
        secret: str = SECRET,
        seconds: int = 60,
    ) -> str:
        expires = int(time.time()) + seconds
        return callback_url.url("http://r", secret, conn, delivery_id, expires)

    return url


@pytest.fixture
def stored(redis_settings: RedisConnection, conn_id: str) -> Callable[[], list[bytes]]:
    """Return the keys of the connection in Redis, without records of deliveries."""
    records = [keys.accepted(conn_id), keys.rejected(conn_id), keys.bad_url(conn_id)]

    def stored() -> list[bytes]:
        with Redis(**dict(redis_settings.options)) as redis:
            found: list[bytes] = redis.keys(f"*{conn_id}*")
            names = [key for key in found if b":refused:" not in key]
            return [key for key in names if key.decode() not in records]

    return stored
