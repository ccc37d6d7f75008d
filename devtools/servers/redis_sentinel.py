"""Three Sentinels that watch a Redis and its replica, on free ports."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from devtools.servers.redis_node import RedisNode, make_node, wait_until
from runqy_sandbox.process.child import Child, Program
from runqy_sandbox.process.net import HOST, free_port
from runqy_sandbox.process.watchdog import Watchdog
from runqy_sandbox.redis_server import find_redis_server, redis_responds

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SENTINELS = 3

#: The name of the primary and its replica.
MASTER = "mymaster"

#: The passwords of Redis, and of the Sentinels.
PASSWORD, SENTINEL_PASSWORD = "of-redis", "of-sentinels"

CONFIG = """
port {port}
bind {host}
dir {folder}
requirepass {sentinel_password}
sentinel sentinel-pass {sentinel_password}
sentinel monitor {master} {host} {primary} 2
sentinel auth-pass {master} {password}
sentinel down-after-milliseconds {master} 3000
sentinel failover-timeout {master} 20000
"""


@dataclass(frozen=True)
class SentinelGroup:
    """A running group.

    Attributes:
        nodes: Both Redis servers; the first was the primary at the start.
        sentinels: The Sentinels.
    """

    nodes: tuple[RedisNode, RedisNode]
    sentinels: tuple[RedisNode, ...]

    @property
    def addresses(self) -> list[str]:
        """Host and port of each Sentinel."""
        return [f"{HOST}:{sentinel.port}" for sentinel in self.sentinels]

    @property
    def airflow_connection(self) -> dict[str, Any]:
        """The fields of an Airflow connection to its primary."""
        extra = {
            "sentinels": self.addresses,
            "sentinel_master": MASTER,
            "sentinel_password": SENTINEL_PASSWORD,
        }
        return {"conn_type": "redis", "password": PASSWORD, "extra": extra}

    def primary(self) -> RedisNode:
        """Return the primary, by the first Sentinel.

        Raises:
            LookupError: It does not know.
        """
        answer = self.sentinels[0].ask("SENTINEL GET-MASTER-ADDR-BY-NAME", MASTER)
        for node in self.nodes:
            if answer is not None and int(answer[1]) == node.port:
                return node
        raise LookupError("the Sentinel does not say who is the primary")

    def hand_over(self) -> None:
        """Make the replica the primary, while the old one runs."""
        wait_until(
            lambda: self.sentinels[0].ask("SENTINEL", "FAILOVER", MASTER),
            "the Sentinels begin a failover",
        )

    def wait_for_failover(self, old: RedisNode) -> RedisNode:
        """Wait until the other Redis is the primary for all Sentinels; return it."""
        new = self.nodes[1] if old is self.nodes[0] else self.nodes[0]

        def is_over() -> bool:
            info = new.ask("INFO", "replication")
            return bool(info) and info["role"] == "master" and self._all_name(new)

        wait_until(is_over, "the replica becomes the primary")
        return new

    def wait_until_complete(self) -> None:
        """Wait until both run, and one follows the other."""

        def is_complete() -> bool:
            infos = [node.ask("INFO", "replication") or {} for node in self.nodes]
            return any(info.get("connected_slaves") for info in infos) and any(
                info.get("master_link_status") == "up" for info in infos
            )

        wait_until(is_complete, "the replica follows its primary")

    def _all_name(self, node: RedisNode) -> bool:
        ask = "SENTINEL GET-MASTER-ADDR-BY-NAME"
        answers = [sentinel.ask(ask, MASTER) for sentinel in self.sentinels]
        return all(answer and int(answer[1]) == node.port for answer in answers)


@contextlib.contextmanager
def running_sentinels(directory: Path, *options: str) -> Iterator[SentinelGroup]:
    """Start the group, wait until it can fail over, and end it.

    Args:
        directory: For the data and the logs.
        options: More options of both Redis servers' command lines.
    """
    login = {"password": PASSWORD}
    secured = ("--requirepass", PASSWORD, "--masterauth", PASSWORD, *options)
    with contextlib.ExitStack() as stack:
        watchdog = stack.enter_context(contextlib.closing(Watchdog()))
        primary = make_node(directory / "one", watchdog, *secured, login=login)
        follows = ("--replicaof", HOST, str(primary.port))
        replica = make_node(
            directory / "two", watchdog, *secured, *follows, login=login
        )
        sentinels = [
            _sentinel(directory / f"sentinel-{number}", primary.port, watchdog)
            for number in range(SENTINELS)
        ]
        for node in (primary, replica, *sentinels):
            node.child.start()
            stack.callback(node.child.stop)
        group = SentinelGroup((primary, replica), tuple(sentinels))
        group.wait_until_complete()
        wait_until(lambda: all(map(_knows_all, sentinels)), "Sentinels know each other")
        yield group


def _knows_all(sentinel: RedisNode) -> bool:
    with sentinel.connect() as redis:
        masters: Any = redis.sentinel_masters()  # by name; its type says otherwise
    state = masters[MASTER]
    return bool(
        state["num-other-sentinels"] == SENTINELS - 1 and state["num-slaves"] == 1
    )


def _sentinel(folder: Path, primary: int, watchdog: Watchdog) -> RedisNode:
    folder.mkdir(parents=True)
    port = free_port()
    config = folder / "sentinel.conf"
    config.write_text(
        CONFIG.format(
            port=port,
            host=HOST,
            folder=folder,
            primary=primary,
            master=MASTER,
            password=PASSWORD,
            sentinel_password=SENTINEL_PASSWORD,
        )
    )
    url = f"redis://:{SENTINEL_PASSWORD}@{HOST}:{port}"
    program = Program(
        "Sentinel",
        [find_redis_server(), str(config), "--sentinel"],
        lambda _pid: redis_responds(url),
    )
    child = Child(program, folder / "log", watchdog)
    return RedisNode(port, child, {"password": SENTINEL_PASSWORD})
