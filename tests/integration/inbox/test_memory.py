"""An inbox whose Redis has a limit of its memory: it is full, or deletes keys."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from devtools.servers.redis_node import make_node
from runqy_delivery import Delivery
from runqy_provider.checks.connection import check_inbox
from runqy_provider.connections import RunqyConnection
from runqy_provider.errors import SinkUnavailable
from runqy_provider.inbox import callback_url
from runqy_provider.inbox.reader import write_and_read
from runqy_provider.receiver.app import create_app
from runqy_provider.receiver.connections import CallbackConnection
from runqy_provider.settings import Settings, load_config
from runqy_sandbox.process.watchdog import Watchdog
from tests.integration.inbox.conftest import redis_connection

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devtools.servers.redis_node import RedisNode
    from runqy_provider.redis_connection import RedisConnection

SECRET = "a-secret-of-the-receiver"

USER, PASSWORD = "few-rights", "of the user"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisNode]:
    """A Redis of its own."""
    watchdog = Watchdog()
    node = make_node(tmp_path_factory.mktemp("memory"), watchdog)
    node.child.start()
    yield node
    node.child.stop()
    watchdog.close()


@pytest.fixture
def settings(node: RedisNode) -> RedisConnection:
    """The connection to it; it is empty and has no limit."""
    node.ask("FLUSHALL")
    set_memory(node, "0", "noeviction")
    return redis_connection(host="127.0.0.1", port=node.port)


@pytest.fixture
def full(node: RedisNode, settings: RedisConnection) -> RedisConnection:
    """The connection to it while it is full."""
    node.ask("CONFIG", "SET", "maxmemory", "1")
    return settings


def set_memory(node: RedisNode, limit: str, policy: str) -> None:
    """Set how much memory a Redis takes; Redis 6 sets one option at a time."""
    assert node.ask("CONFIG", "SET", "maxmemory", limit)
    assert node.ask("CONFIG", "SET", "maxmemory-policy", policy)


def checked(redis: RedisConnection) -> tuple[str, str]:
    """Return the status and the message of the check of an inbox."""
    connection = RunqyConnection("runqy_default", "http://127.0.0.1")
    found = check_inbox(Settings(connection, load_config(), redis))
    return found.status, found.message


def test_inbox_full_redis_is_out_of_memory(full: RedisConnection, conn_id: str) -> None:
    with pytest.raises(SinkUnavailable, match="out of memory") as caught:
        write_and_read(full, conn_id)

    assert "does not answer" not in str(caught.value)
    assert full.address in str(caught.value)


async def test_receiver_full_redis_responds_503_out_of_memory(
    full: RedisConnection, conn_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    known = CallbackConnection(conn_id, full, (SECRET,))

    async def find(_conn_id: str, *, refresh: bool = False) -> CallbackConnection:
        return known

    app = create_app(find)
    url = callback_url.url("http://r", SECRET, conn_id, "d", int(time.time()) + 60)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app)) as client,
    ):
        response = await client.post(url, content=Delivery("d", result=1).to_json())

    assert response.status_code == httpx.codes.SERVICE_UNAVAILABLE
    assert "Retry-After" in response.headers
    assert "out of memory" in response.json()["error"]
    assert "out of memory" in caplog.text


@pytest.mark.parametrize(
    ("policy", "limit", "status"),
    [
        ("allkeys-lru", "100mb", "warning"),
        ("volatile-ttl", "100mb", "warning"),
        ("noeviction", "100mb", "ok"),
        ("allkeys-lru", "0", "ok"),
    ],
)
def test_check_inbox_redis_that_deletes_unread_keys_is_warned_of(
    settings: RedisConnection, node: RedisNode, policy: str, limit: str, status: str
) -> None:
    set_memory(node, limit, policy)

    found, message = checked(settings)

    assert found == status
    assert (f"maxmemory-policy {policy}" in message) == (status == "warning")


@pytest.mark.parametrize("right", ["+@all -info", "-@dangerous +keys"])
def test_check_inbox_user_who_may_not_ask_gets_no_warning(
    settings: RedisConnection, node: RedisNode, right: str
) -> None:
    set_memory(node, "100mb", "allkeys-lru")
    rules = ["on", f">{PASSWORD}", "~*", "&*", "+@all", *right.split()]
    node.ask("ACL", "SETUSER", USER, *rules)
    options: dict[str, Any] = {"login": USER, "password": PASSWORD}
    user = redis_connection(host="127.0.0.1", port=node.port, **options)

    assert checked(user)[0] == "ok"
    node.ask("ACL", "DELUSER", USER)
