"""Which requests the receiver accepts and refuses, with a real Redis."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import pytest
from redis import Redis

from runqy_delivery import Delivery
from runqy_provider.inbox import keys
from runqy_provider.inbox.reader import InboxReader
from runqy_provider.receiver.app import create_app
from runqy_provider.receiver.connections import CallbackConnection
from tests.integration.receiver.constants import (
    GOOD,
    LIMITS,
    OLD_SECRET,
    SECRET,
    Client,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from runqy_provider.redis_connection import RedisConnection


async def test_receiver_delivery_is_stored(
    client: Client,
    url: Callable[..., str],
    redis_settings: RedisConnection,
    conn_id: str,
) -> None:
    response = await client.post(url(), content=GOOD)

    assert (response.status_code, response.json()) == (200, {"outcome": "stored"})
    with InboxReader(redis_settings, conn_id) as reader:
        assert reader.read("d").delivery.result == {"a": 1}


async def test_receiver_repeat_is_200_and_other_result_409(
    client: Client, url: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    other = Delivery("d", result={"a": 2}).to_json()
    responses = [await client.post(url(), content=b) for b in (GOOD, GOOD, other)]

    assert [response.status_code for response in responses] == [200, 200, 409]
    assert "came first" in responses[2].json()["error"]
    assert "conflict" in caplog.text


async def test_receiver_progress_returns_202(
    client: Client, url: Callable[..., str]
) -> None:
    body = Delivery("d", status="progress", fraction=0.5).to_json()

    assert (await client.post(url(), content=body)).status_code == 202


async def test_receiver_old_secret_is_accepted_while_rotating(
    client: Client, url: Callable[..., str]
) -> None:
    response = await client.post(url(secret=OLD_SECRET), content=GOOD)

    assert response.status_code == 200


def _changed(url: str, name: str, value: str) -> httpx.URL:
    return httpx.URL(url).copy_set_param(name, value)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda make: make(secret="an unknown secret"), id="forged"),
        pytest.param(lambda make: make(seconds=-1), id="expired"),
        pytest.param(lambda make: make(conn="no_such_connection"), id="foreign"),
        pytest.param(lambda make: make("other").replace("other", "d"), id="moved"),
        pytest.param(lambda make: _changed(make(), "token", ""), id="no token"),
        pytest.param(lambda make: _changed(make(), "token", "ü\0"), id="invalid token"),
        pytest.param(
            lambda make: _changed(make(), "expires", "x"), id="invalid expiry"
        ),
        pytest.param(
            lambda make: _changed(make(), "expires", "9" * 11), id="later expiry"
        ),
        pytest.param(
            lambda make: _changed(make(), "expires", "9" * 4000), id="huge expiry"
        ),
        pytest.param(lambda make: make("a b"), id="invalid delivery"),
        pytest.param(lambda make: str(make()).partition("?")[0], id="no query"),
    ],
)
async def test_receiver_invalid_callback_url_gets_same_403(
    client: Client,
    url: Callable[..., str],
    stored: Callable[[], list[bytes]],
    change: Any,
) -> None:
    response = await client.post(change(url), content=GOOD)
    forged = await client.post(url(secret="another unknown secret"), content=GOOD)

    assert response.status_code == 403
    assert response.content == forged.content
    assert response.headers == forged.headers
    assert stored() == []


async def test_receiver_connection_misconfigured_returns_503(
    client: Client, url: Callable[..., str]
) -> None:
    """The status is 503 and not 403, so that the sender tries again."""
    response = await client.post(url(conn="broken"), content=GOOD)

    assert (response.status_code, response.headers["Retry-After"]) == (503, "5")


async def test_receiver_redis_unavailable_returns_503(
    client: Client,
    url: Callable[..., str],
    connections: dict[str, CallbackConnection],
    conn_id: str,
    unreachable_redis: RedisConnection,
) -> None:
    reachable = connections[conn_id]
    connections[conn_id] = CallbackConnection(conn_id, unreachable_redis, (SECRET,))

    unavailable = await client.post(url(), content=GOOD)
    connections[conn_id] = reachable
    available = await client.post(url(), content=GOOD)

    assert (unavailable.status_code, available.status_code) == (503, 200)
    assert int(unavailable.headers["Retry-After"]) > 0
    assert unreachable_redis.address not in unavailable.text


async def test_receiver_health_reveals_nothing(client: Client) -> None:
    assert (await client.get("/health")).json() == {"status": "ok"}
    for path in ("/docs", "/openapi.json", "/redoc"):
        assert (await client.get(path)).status_code == 404


async def test_receiver_logs_no_secret(
    client: Client, url: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="runqy_provider")
    address = url()
    await client.post(address, content=GOOD)
    await client.post(url(secret="an unknown secret"), content=GOOD)

    ours = "".join(r.getMessage() for r in caplog.records if "runqy" in r.name)
    assert "stored" in ours
    assert httpx.URL(address).params["token"] not in ours
    assert SECRET not in ours


async def test_receiver_delivery_read_and_forgotten_still_wins(
    client: Client,
    url: Callable[..., str],
    redis_settings: RedisConnection,
    conn_id: str,
) -> None:
    """Another result is a conflict for as long as the callback URL is valid."""
    await client.post(url(), content=GOOD)
    with Redis(**dict(redis_settings.options)) as redis:
        redis.delete(keys.delivery(conn_id, "d"))
        assert 0 < redis.ttl(keys.seen(conn_id, "d")) <= 61
    other = Delivery("d", result={"a": 2}).to_json()
    responses = [await client.post(url(), content=body) for body in (other, GOOD)]

    assert [response.status_code for response in responses] == [409, 200]
    assert responses[1].json() == {"outcome": "repeated"}


async def test_receiver_changed_secret_is_looked_up_again(
    url: Callable[..., str], redis_settings: RedisConnection, conn_id: str
) -> None:
    old = CallbackConnection(conn_id, redis_settings, (OLD_SECRET,))
    new = CallbackConnection(conn_id, redis_settings, (SECRET, OLD_SECRET))

    async def find(_conn_id: str, *, refresh: bool = False) -> CallbackConnection:
        return new if refresh else old

    app = create_app(find, LIMITS)
    async with (
        app.router.lifespan_context(app),
        Client(transport=httpx.ASGITransport(app), base_url="http://r") as client,
    ):
        accepted = await client.post(url(), content=GOOD)
        forged = await client.post(url(secret="an unknown secret"), content=GOOD)

    assert (accepted.status_code, forged.status_code) == (200, 403)
