"""The inbox over TLS, and as a user that may do only what it needs."""

from __future__ import annotations

import asyncio
import io
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from devtools.servers.redis_cluster import running_redis_cluster
from devtools.servers.redis_tls import make_certificates, running_tls_redis
from runqy_delivery import Delivery
from runqy_provider.errors import NoAccess, SinkUnavailable
from runqy_provider.inbox import keys
from runqy_provider.inbox.callback_url import new_channel_delivery_id
from runqy_provider.inbox.channel_reader import ChannelReader, ChannelTaker
from runqy_provider.inbox.manifest import InboxManifest
from runqy_provider.inbox.reader import (
    InboxReader,
    InboxSource,
    StoredDelivery,
    write_and_read,
)
from runqy_provider.inbox.records import RejectionRecorder, read_recent
from runqy_provider.inbox.writer import InboxWriter, Outcome, digest
from runqy_provider.jobs.attempt_store import RedisStore
from runqy_provider.receiver.__main__ import connection_from
from runqy_provider.redis_client import async_client
from runqy_provider.redis_connection import RedisConnection
from runqy_sandbox.redis_server import _version, find_redis_server
from tests.integration.inbox.conftest import redis_connection

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devtools.servers.redis_node import RedisNode
    from devtools.servers.redis_sentinel import SentinelGroup
    from devtools.servers.redis_tls import Certificates

LIMIT = 60.0

PAGE = Path(__file__).parents[3] / "docs/how-to/redis.md"

USER, PASSWORD = "airflow", "of the user"


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def tls_redis(
    tmp_path_factory: pytest.TempPathFactory, certificates: Certificates
) -> Iterator[RedisNode]:
    with running_tls_redis(tmp_path_factory.mktemp("tls"), certificates) as node:
        yield node


def set_user(execute: Any) -> None:
    """Create the user exactly as the documentation says.

    Args:
        execute: Runs a command on a Redis.
    """
    [line] = re.findall(r"^ACL SETUSER airflow (.*)$", PAGE.read_text(), re.MULTILINE)
    left_out = () if _is_redis_7() else ("+spublish", "+ssubscribe")
    rules = [rule for rule in line.split() if rule not in left_out]
    rules[rules.index(">PASSWORD")] = f">{PASSWORD}"
    execute("ACL", "SETUSER", USER, *rules)


def _is_redis_7() -> bool:
    return _version(find_redis_server()) >= (7,)


async def use_everything(redis: RedisConnection, conn_id: str) -> None:
    """Do once whatever receivers, triggerers and workers do with the inbox."""
    write_and_read(redis, conn_id)
    namespace, in_keys = redis.for_namespace(conn_id), redis.in_keys(conn_id)
    source = InboxSource(redis, conn_id)
    hints = source.hints()
    assert await asyncio.wait_for(anext(hints), LIMIT) is None
    channel_id = new_channel_delivery_id("c")
    async with async_client(namespace, most_connections=4) as node:
        writer = InboxWriter(node, redis, conn_id, ttl=100)
        for delivery in (
            Delivery("p", status="progress", fraction=0.5),
            Delivery("d", result=1),
            Delivery(channel_id, result=2),
        ):
            body, mark = delivery.to_json(), digest(delivery)
            outcome = await writer.put(delivery, body, mark, int(time.time()) + 60)
            assert outcome is not Outcome.CONFLICT
        recorder = RejectionRecorder(lambda _redis: node, ttl=100)
        recorder.add(redis, keys.rejected(in_keys), "d", "signature")
        await recorder.aclose()
        await node.ping()
        recent = await read_recent(node, in_keys, 10)
    assert len(recent.accepted) == 2
    assert len(recent.rejected) == 1
    assert await asyncio.wait_for(anext(hints), LIMIT) == "p"
    await hints.aclose()  # type: ignore[attr-defined] # a generator
    assert set(await source.poll(["d", "p"])) == {"d", "p"}
    await source.aclose()
    with InboxReader(redis, conn_id) as reader:
        assert reader.read("d", max_bytes=1000).delivery.result == 1
        [small] = reader.read_small(["d"], 1000)
        assert isinstance(small, StoredDelivery)
        reader.forget("d")
    manifest = InboxManifest(redis, conn_id, "b")
    manifest.write(io.BytesIO(b"{}"), ttl=100)
    with manifest.stream() as stream:
        assert (manifest.size(), stream.read()) == (2, b"{}")
    channel = ChannelReader(redis, conn_id, "c", "g")
    [(entry_id, _)] = await channel.read()
    await channel.acknowledge([entry_id])
    taker = ChannelTaker(redis, conn_id, "c", "dag", "run")
    [(entry_id, _)] = taker.take(10, with_failures=False)
    assert await channel.leftovers(bool, 100) == []
    taker.acknowledge([entry_id])
    taker.close()
    await channel.aclose()
    store = RedisStore(namespace, keys.attempt(in_keys, "name"))
    store.write({"some": "record"}, time.time() + 60)
    assert store.read() == {"some": "record"}


async def test_inbox_tls_certificates_of_the_connection_are_used(
    tls_redis: RedisNode, certificates: Certificates, conn_id: str
) -> None:
    settings = redis_connection(
        host="127.0.0.1", port=tls_redis.port, extra=certificates.client_options
    )
    await use_everything(settings, conn_id)


def test_standalone_receiver_tls_url_has_the_fields_of_the_extra(
    tls_redis: RedisNode, certificates: Certificates, conn_id: str
) -> None:
    files = certificates.client_options
    fields = "&".join(f"{name}={files[name]}" for name in files if name != "ssl")
    environment = {
        "RUNQY_INBOX_REDIS_URL": f"rediss://127.0.0.1:{tls_redis.port}/0?{fields}",
        "RUNQY_CALLBACK_SECRET": "a-secret-of-the-receiver",
    }
    write_and_read(connection_from(environment, conn_id).redis, conn_id)


@pytest.mark.parametrize("missing", ["ssl", "ssl_ca_certs", "ssl_certfile"])
def test_inbox_tls_option_missing_is_unavailable(
    tls_redis: RedisNode, certificates: Certificates, conn_id: str, missing: str
) -> None:
    extra = certificates.client_options
    del extra[missing]
    if missing == "ssl_certfile":
        del extra["ssl_keyfile"]
    settings = redis_connection(host="127.0.0.1", port=tls_redis.port, extra=extra)
    with pytest.raises(SinkUnavailable, match="does not answer"):
        write_and_read(settings, conn_id)


@pytest.fixture
def user_settings(redis_port: int, redis_url: str) -> Iterator[RedisConnection]:
    """A connection as the documented user."""
    from redis import Redis

    with Redis.from_url(redis_url) as redis:
        execute: Any = redis.execute_command  # it has no types
        set_user(execute)
        yield redis_connection(
            host="127.0.0.1", port=redis_port, login=USER, password=PASSWORD
        )
        execute("ACL", "DELUSER", USER)


async def test_inbox_documented_user_may_do_all_that_is_needed(
    user_settings: RedisConnection, conn_id: str
) -> None:
    await use_everything(user_settings, conn_id)


def test_inbox_documented_user_cannot_touch_other_keys(
    user_settings: RedisConnection,
) -> None:
    from redis.exceptions import NoPermissionError

    from runqy_provider.redis_client import client

    with client(user_settings) as redis:
        for act in (redis.flushdb, redis.dbsize, lambda: redis.get("other")):
            with pytest.raises(NoPermissionError):
                act()


async def test_channel_user_of_an_earlier_version_is_told_what_it_lacks(
    redis_url: str, user_settings: RedisConnection, conn_id: str
) -> None:
    from redis import Redis

    await use_everything(user_settings, conn_id)
    with Redis.from_url(redis_url) as redis:
        execute: Any = redis.execute_command  # it has no types
        execute("ACL", "SETUSER", USER, "-xrange", "-xinfo", "-xtrim")
    taker = ChannelTaker(user_settings, conn_id, "c", "dag", "run")
    with pytest.raises(NoAccess, match="permissions"):
        taker.take(10, with_failures=False)
    taker.close()
    async with async_client(user_settings, most_connections=1) as client:
        delivery = Delivery(new_channel_delivery_id("c"), result=1)
        writer = InboxWriter(client, user_settings, conn_id, ttl=100)
        outcome = await writer.put(delivery, delivery.to_json(), digest(delivery))
    assert outcome is Outcome.STORED
    channel = ChannelReader(user_settings, conn_id, "c", "g")
    assert len(await channel.read()) == 1
    with pytest.raises(NoAccess):
        await channel.leftovers(bool, 100)
    await channel.aclose()


def test_inbox_wrong_password_is_not_in_the_message(
    user_settings: RedisConnection, conn_id: str
) -> None:
    options = {**dict(user_settings.options), "password": "wrong-and-secret"}
    wrong = RedisConnection("r", user_settings.address, tuple(options.items()))
    with pytest.raises(NoAccess, match="login and password") as caught:
        write_and_read(wrong, conn_id)
    assert "wrong-and-secret" not in str(caught.value)


def test_inbox_documented_user_of_sentinels_finds_the_primary(
    sentinels: SentinelGroup, conn_id: str
) -> None:
    [rule] = re.findall(r"`(\+sentinel\|[a-z-]+)`", PAGE.read_text())
    for sentinel in sentinels.sentinels:
        assert sentinel.ask("ACL", "SETUSER", USER, "on", f">{PASSWORD}", "-@all", rule)
    fields = sentinels.airflow_connection
    login = {"sentinel_username": USER, "sentinel_password": PASSWORD}
    write_and_read(
        redis_connection(**{**fields, "extra": {**fields["extra"], **login}}), conn_id
    )

    login["sentinel_password"] = "wrong-and-secret"
    wrong = redis_connection(**{**fields, "extra": {**fields["extra"], **login}})
    with pytest.raises(NoAccess, match="denies access") as caught:
        write_and_read(wrong, conn_id)
    assert "wrong-and-secret" not in str(caught.value)


async def test_inbox_documented_user_may_do_all_that_a_cluster_needs(
    tmp_path: Path, conn_id: str
) -> None:
    with running_redis_cluster(tmp_path) as cluster:
        for node in cluster.nodes:
            set_user(node.ask)
        host, _, port = cluster.addresses[0].partition(":")
        settings = redis_connection(
            host=host,
            port=int(port),
            login=USER,
            password=PASSWORD,
            extra={"cluster": True},
        )
        await use_everything(settings, conn_id)

        wrong = redis_connection(
            host=host,
            port=int(port),
            login=USER,
            password="wrong-and-secret",
            extra={"cluster": True},
        )
        with pytest.raises(NoAccess, match="login and password") as caught:
            write_and_read(wrong, conn_id)
        assert "wrong-and-secret" not in str(caught.value)
