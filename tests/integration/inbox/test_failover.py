"""The inbox in a Redis that fails over, is a replica, or grants few permissions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from redis import Redis

from devtools.servers.switch import Switch
from runqy_delivery import Delivery
from runqy_provider.errors import Misconfigured, NoAccess, SinkUnavailable
from runqy_provider.inbox.reader import InboxReader, write_and_read
from runqy_provider.inbox.writer import InboxWriter, Outcome, digest
from runqy_provider.redis_client import async_client
from runqy_provider.redis_connection import RedisConnection
from runqy_sandbox.process.child import Child
from runqy_sandbox.process.net import free_port
from runqy_sandbox.process.watchdog import Watchdog
from runqy_sandbox.redis_server import redis_program

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[int, int]]:
    """Two Redis servers; the ports of both."""
    watchdog = Watchdog()
    children = []
    ports = []
    for name in ("one", "two"):
        port = free_port()
        program = redis_program(port, tmp_path / name, appendonly=False)
        child = Child(program, tmp_path / f"{name}.log", watchdog)
        child.start()
        children.append(child)
        ports.append(port)
    yield ports[0], ports[1]
    for child in children:
        child.stop()
    watchdog.close()


def _settings(port: int, **options: Any) -> RedisConnection:
    given = {"host": "127.0.0.1", "port": port, "db": 0, **options}
    return RedisConnection("redis_default", f"127.0.0.1:{port}/0", tuple(given.items()))


def _fail_over(switch: Switch, ports: tuple[int, int]) -> None:
    """Make the first server a replica, and the second the target of new connections."""
    with Redis(port=ports[0]) as old:
        old.replicaof("127.0.0.1", ports[1])
    switch.leads_to = ports[1]


@pytest.mark.parametrize("final", [True, False])
async def test_inbox_failover_first_write_goes_to_new_primary(
    pair: tuple[int, int], conn_id: str, *, final: bool
) -> None:
    with Switch(pair[0]) as switch:
        settings = _settings(switch.port)
        redis = async_client(settings, most_connections=4)
        writer = InboxWriter(redis, settings, conn_id)
        before = Delivery("before", result=1)
        assert await writer.put(before, before.to_json(), digest(before)) is (
            Outcome.STORED
        )
        _fail_over(switch, pair)

        after = (
            Delivery("after", result=2)
            if final
            else Delivery("after", status="progress", fraction=0.5)
        )
        outcome = await writer.put(after, after.to_json(), digest(after))
        await redis.aclose()

    assert outcome is (Outcome.STORED if final else Outcome.NOTED)
    with Redis(port=pair[1]) as new:
        assert list(new.scan_iter(f"runqy:inbox:{conn_id}:*:after"))


def test_inbox_check_leaves_no_key(
    redis_settings: RedisConnection, conn_id: str, redis_url: str
) -> None:
    write_and_read(redis_settings, conn_id)

    with Redis.from_url(redis_url) as redis:
        assert list(redis.scan_iter(f"*{conn_id}*")) == []


def test_inbox_check_replica_is_refused(pair: tuple[int, int]) -> None:
    with Redis(port=pair[0]) as redis:
        redis.replicaof("127.0.0.1", pair[1])

    with pytest.raises(Misconfigured, match="read-only replica"):
        write_and_read(_settings(pair[0]), "c")


@pytest.mark.parametrize(
    ("permissions", "step"),
    [
        ("+@all -@scripting ~runqy:* allchannels", "write a key with a script"),
        ("+@all ~other:* allchannels", "write a key with a script"),
        ("+@all -publish ~runqy:* allchannels", "publish on a channel"),
        ("+@all ~runqy:* resetchannels", "publish on a channel"),
    ],
)
def test_inbox_check_missing_permission_names_the_step(
    pair: tuple[int, int], permissions: str, step: str
) -> None:
    with Redis(port=pair[0]) as redis:
        redis.execute_command(
            "ACL", "SETUSER", "app", "on", ">pw", *permissions.split()
        )

    with pytest.raises(NoAccess, match=step):
        write_and_read(_settings(pair[0], username="app", password="pw"), "c")


def test_inbox_check_documented_permissions_suffice(pair: tuple[int, int]) -> None:
    permissions = ["+@all", "~runqy:inbox:*", "resetchannels", "&runqy:inbox:*"]
    with Redis(port=pair[0]) as redis:
        redis.execute_command("ACL", "SETUSER", "app", "on", ">pw", *permissions)

    write_and_read(_settings(pair[0], username="app", password="pw"), "c")


def test_inbox_check_redis_unavailable_names_the_step(
    unreachable_redis: RedisConnection,
) -> None:
    with pytest.raises(SinkUnavailable, match="write a key"):
        write_and_read(unreachable_redis, "c")


def test_inbox_source_reads_from_replica(pair: tuple[int, int], conn_id: str) -> None:
    """After a failover the old primary is a replica, which still serves reads."""
    with Redis(port=pair[0]) as redis:
        body = Delivery("d", result=1).to_json()
        key = f"runqy:inbox:{conn_id}:delivery:d"
        redis.hset(key, mapping={"status": "completed", "body": body, "at": "1"})
    with InboxReader(_settings(pair[0]), conn_id) as reader:
        assert reader.read("d").delivery.result == 1
