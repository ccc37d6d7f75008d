"""The receiver, over HTTP, on a real Redis: what it takes and what it refuses."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from datetime import UTC
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from redis import Redis
from standardwebhooks.webhooks import Webhook

from runqy_delivery import Delivery
from runqy_delivery.signature import sign
from runqy_provider.errors import Misconfigured
from runqy_provider.inbox import callback_url, keys
from runqy_provider.inbox.reader import InboxReader
from runqy_provider.receiver.app import create_app
from runqy_provider.receiver.connections import CallbackConnection, Limits

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from runqy_provider.connections import RedisConnection

SECRET = "a secret of the receiver"
OLD_SECRET = "the secret before that one"
SIGNING = "whsec_" + base64.b64encode(b"signs bodies").decode()
LIMITS = Limits(
    max_body_bytes=2000,
    max_drain_bytes=2000,
    ttl=100,
    body_seconds=1.5,
    grace=0.3,
    max_in_flight=4,
    max_in_flight_per_delivery=2,
)
GOOD = Delivery("d", result={"a": 1}).to_json()

Client = httpx.AsyncClient


@pytest.fixture
def doors(
    redis_settings: RedisConnection, conn_id: str
) -> dict[str, CallbackConnection]:
    return {conn_id: CallbackConnection(conn_id, redis_settings, (SECRET, OLD_SECRET))}


@pytest.fixture
async def client(doors: dict[str, CallbackConnection]) -> AsyncIterator[Client]:
    async def find(conn_id: str, *, refresh: bool = False) -> CallbackConnection | None:
        if conn_id == "broken":
            raise Misconfigured("its Redis connection does not exist")
        return doors.get(conn_id)

    app = create_app(find, LIMITS)
    async with (
        app.router.lifespan_context(app),
        Client(transport=httpx.ASGITransport(app), base_url="http://r") as client,
    ):
        yield client


@pytest.fixture
def url(conn_id: str) -> Callable[..., str]:
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
    def stored() -> list[bytes]:
        with Redis(**dict(redis_settings.options)) as redis:
            found: list[bytes] = redis.keys(f"*{conn_id}*")
            return found

    return stored


async def test_receiver_delivery_is_stored(
    client: Client, url: Any, redis_settings: RedisConnection, conn_id: str
) -> None:
    answer = await client.post(url(), content=GOOD)

    assert (answer.status_code, answer.json()) == (200, {"outcome": "stored"})
    with InboxReader(redis_settings, conn_id) as reader:
        assert reader.read("d").delivery.result == {"a": 1}


async def test_receiver_repeat_is_200_and_other_result_409(
    client: Client, url: Any, caplog: pytest.LogCaptureFixture
) -> None:
    other = Delivery("d", result={"a": 2}).to_json()
    answers = [await client.post(url(), content=b) for b in (GOOD, GOOD, other)]

    assert [answer.status_code for answer in answers] == [200, 200, 409]
    assert "came first" in answers[2].json()["error"]
    assert "conflict" in caplog.text


async def test_receiver_progress_returns_202(client: Client, url: Any) -> None:
    body = Delivery("d", status="progress", fraction=0.5).to_json()

    assert (await client.post(url(), content=body)).status_code == 202


async def test_receiver_old_secret_is_accepted_while_rotating(
    client: Client, url: Any
) -> None:
    answer = await client.post(url(secret=OLD_SECRET), content=GOOD)

    assert answer.status_code == 200


def _changed(url: str, name: str, value: str) -> httpx.URL:
    return httpx.URL(url).copy_set_param(name, value)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda make: make(secret="a secret of a stranger"), id="forged"),
        pytest.param(lambda make: make(seconds=-1), id="expired"),
        pytest.param(lambda make: make(conn="no_such_connection"), id="foreign"),
        pytest.param(lambda make: make("other").replace("other", "d"), id="moved"),
        pytest.param(lambda make: _changed(make(), "token", ""), id="no token"),
        pytest.param(lambda make: _changed(make(), "token", "ü\0"), id="odd token"),
        pytest.param(lambda make: _changed(make(), "expires", "x"), id="odd expiry"),
        pytest.param(
            lambda make: _changed(make(), "expires", "9" * 11), id="later expiry"
        ),
        pytest.param(
            lambda make: _changed(make(), "expires", "9" * 4000), id="huge expiry"
        ),
        pytest.param(lambda make: make("a b"), id="odd delivery"),
        pytest.param(lambda make: str(make()).partition("?")[0], id="bare"),
    ],
)
async def test_receiver_invalid_callback_url_gets_same_403(
    client: Client, url: Any, stored: Any, change: Any
) -> None:
    answer = await client.post(change(url), content=GOOD)
    bare = await client.post(url(secret="nobody knows this one"), content=GOOD)

    assert answer.status_code == 403
    assert answer.content == bare.content
    assert answer.headers == bare.headers
    assert stored() == []


@pytest.mark.parametrize(
    ("body", "words"),
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
    client: Client, url: Any, stored: Any, body: bytes, words: str
) -> None:
    answer = await client.post(url(), content=body)

    assert answer.status_code == 400
    assert words in answer.json()["error"]
    assert stored() == []


@pytest.mark.parametrize("declared", [True, False])
async def test_receiver_body_too_large_returns_413(
    client: Client, url: Any, stored: Any, *, declared: bool
) -> None:
    sent = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(100):
            sent += 1000
            yield b"x" * 1000

    content = b"x" * 4001 if declared else chunks()
    answer = await client.post(url(), content=content)

    assert answer.status_code == 413
    assert "object store" in answer.json()["error"]
    assert sent <= 5000 or declared
    assert stored() == []


async def test_receiver_endless_body_is_refused(
    client: Client, url: Any, stored: Any
) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    answer = await client.post(url(), content=chunks())

    assert answer.status_code == 408
    assert stored() == []


async def test_receiver_slow_body_is_refused_early(
    client: Client, url: Any, stored: Any
) -> None:
    """At less than the slowest rate that is taken, however steadily."""

    async def chunks() -> AsyncIterator[bytes]:
        yield b"{"
        while True:
            await asyncio.sleep(0.01)
            yield b" "

    began = time.monotonic()
    answer = await client.post(url(), content=chunks())

    assert answer.status_code == 408
    assert time.monotonic() - began < LIMITS.body_seconds
    assert stored() == []


async def test_receiver_requests_for_one_delivery_are_limited(
    client: Client, url: Any
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


async def test_receiver_connection_misconfigured_returns_503(
    client: Client, url: Any
) -> None:
    """The sender is told to come again, not that it may not deliver."""
    answer = await client.post(url(conn="broken"), content=GOOD)

    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")


async def test_receiver_too_many_requests_return_429(client: Client, url: Any) -> None:
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
    answer = await client.post(url(), content=GOOD)
    await asyncio.gather(*slow)

    assert answer.status_code == 429
    assert int(answer.headers["Retry-After"]) > 0
    assert (await client.post(url(), content=GOOD)).status_code == 200


async def test_receiver_redis_unavailable_returns_503(
    client: Client,
    url: Any,
    doors: dict[str, CallbackConnection],
    conn_id: str,
    unreachable_redis: Any,
) -> None:
    there = doors[conn_id]
    doors[conn_id] = CallbackConnection(conn_id, unreachable_redis, (SECRET,))

    away = await client.post(url(), content=GOOD)
    doors[conn_id] = there
    back = await client.post(url(), content=GOOD)

    assert (away.status_code, back.status_code) == (503, 200)
    assert int(away.headers["Retry-After"]) > 0
    assert unreachable_redis.address not in away.text


@pytest.fixture
def signed_door(doors: dict[str, CallbackConnection], conn_id: str) -> None:
    door = doors[conn_id]
    doors[conn_id] = CallbackConnection(
        conn_id, door.redis, door.callback_secrets, (SIGNING,)
    )


@pytest.mark.usefixtures("signed_door")
async def test_receiver_signing_secret_unsigned_body_is_refused(
    client: Client, url: Any, stored: Any
) -> None:
    now = int(time.time())
    unsigned = await client.post(url(), content=GOOD)
    forged = await client.post(
        url(), content=GOOD, headers=sign("AAAA", "d", now, GOOD)
    )
    stale = sign(SIGNING, "d", now - 7200, GOOD)
    old = await client.post(url(), content=GOOD, headers=stale)
    assert [a.status_code for a in (unsigned, forged, old)] == [403] * 3
    assert stored() == []

    # A clock that is ten minutes off costs no result.
    good = sign(SIGNING, "d", now - 600, GOOD)
    assert (await client.post(url(), content=GOOD, headers=good)).status_code == 200


@pytest.mark.usefixtures("signed_door")
async def test_receiver_signature_of_standardwebhooks_is_accepted(
    client: Client, url: Any
) -> None:
    from datetime import datetime

    now = datetime.now(tz=UTC)
    signature = Webhook(SIGNING).sign("msg_1", now, GOOD.decode())
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": signature,
    }

    assert (await client.post(url(), content=GOOD, headers=headers)).status_code == 200


def test_signature_is_accepted_by_standardwebhooks() -> None:
    headers = sign(SIGNING, "msg_1", int(time.time()), GOOD)

    assert Webhook(SIGNING).verify(GOOD, headers) == {
        "version": 1,
        "task_id": "d",
        "status": "completed",
        "result": {"a": 1},
    }


async def test_receiver_health_reveals_nothing(client: Client) -> None:
    assert (await client.get("/health")).json() == {"status": "ok"}
    for path in ("/docs", "/openapi.json", "/redoc"):
        assert (await client.get(path)).status_code == 404


async def test_receiver_logs_no_secret(
    client: Client, url: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="runqy_provider")
    address = url()
    await client.post(address, content=GOOD)
    await client.post(url(secret="a stranger's secret"), content=GOOD)

    ours = "".join(r.getMessage() for r in caplog.records if "runqy" in r.name)
    assert "stored" in ours
    assert httpx.URL(address).params["token"] not in ours
    assert SECRET not in ours


async def test_receiver_large_body_is_parsed_in_a_thread(
    redis_settings: RedisConnection, conn_id: str, url: Any
) -> None:
    door = CallbackConnection(conn_id, redis_settings, (SECRET,))

    async def find(_conn_id: str, *, refresh: bool = False) -> CallbackConnection:
        return door

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
    redis_settings: RedisConnection, conn_id: str, url: Any, stored: Any
) -> None:
    """However deep Python itself can read on this machine."""
    door = CallbackConnection(conn_id, redis_settings, (SECRET,))

    async def find(_conn_id: str, *, refresh: bool = False) -> CallbackConnection:
        return door

    app = create_app(find)
    depth = 200_000
    body = b'{"task_id": "d", "result": ' + b"[" * depth + b"]" * depth + b"}"
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        Client(transport=transport, base_url="http://r") as client,
    ):
        answer = await client.post(url(), content=body)

    assert answer.status_code == 400
    assert stored() == []


async def test_receiver_body_with_many_containers_is_not_parsed(
    client: Client, url: Any, stored: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parsed, they would take fifty times the room."""
    monkeypatch.setattr("runqy_provider.receiver.app.MOST_CONTAINERS", 20)
    body = json.dumps({"task_id": "d", "result": [{} for _ in range(30)]}).encode()
    answer = await client.post(url(), content=body)

    assert answer.status_code == 400
    assert "more than 20 lists and objects" in answer.json()["error"]
    assert stored() == []


async def test_receiver_body_slightly_too_large_is_read_to_its_end(
    client: Client, url: Any, stored: Any
) -> None:
    """So that its sender hears the answer, and no broken connection."""
    sent = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(3):
            sent += 1000
            yield b"x" * 1000

    answer = await client.post(url(), content=chunks())

    assert (answer.status_code, sent) == (413, 3000)
    assert stored() == []


async def test_receiver_delivery_read_and_forgotten_still_wins(
    client: Client, url: Any, redis_settings: RedisConnection, conn_id: str
) -> None:
    """As long as the address works, another one is none."""
    await client.post(url(), content=GOOD)
    with Redis(**dict(redis_settings.options)) as redis:
        redis.delete(keys.delivery(conn_id, "d"))
        assert 0 < redis.ttl(keys.seen(conn_id, "d")) <= 61
    other = Delivery("d", result={"a": 2}).to_json()
    answers = [await client.post(url(), content=body) for body in (other, GOOD)]

    assert [answer.status_code for answer in answers] == [409, 200]
    assert answers[1].json() == {"outcome": "repeated"}


async def test_receiver_changed_secret_is_looked_up_again(
    url: Any, redis_settings: RedisConnection, conn_id: str
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
        taken = await client.post(url(), content=GOOD)
        forged = await client.post(url(secret="a stranger's own"), content=GOOD)

    assert (taken.status_code, forged.status_code) == (200, 403)
