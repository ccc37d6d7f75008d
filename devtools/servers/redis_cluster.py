"""A Redis Cluster: three primaries, each with a replica, on free ports."""

from __future__ import annotations

import contextlib
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from devtools.servers.redis_node import BUS_OFFSET, RedisNode, make_node, wait_until
from runqy_sandbox.process.net import HOST, free_port
from runqy_sandbox.process.watchdog import Watchdog

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PRIMARIES = 3

#: Milliseconds after which a node that does not answer counts as down.
NODE_TIMEOUT = 3000


@dataclass(frozen=True)
class RedisCluster:
    """A running cluster.

    Attributes:
        nodes: Its nodes: first those that were primaries at the start.
    """

    nodes: tuple[RedisNode, ...]

    @property
    def addresses(self) -> list[str]:
        """Host and port of each node."""
        return [f"{HOST}:{node.port}" for node in self.nodes]

    @property
    def airflow_connection(self) -> dict[str, Any]:
        """The fields of an Airflow connection to it; it names three of the nodes."""
        first, *others = self.addresses[::2]
        host, _, port = first.partition(":")
        extra = {"cluster": True, "startup_nodes": ",".join(others)}
        return {"conn_type": "redis", "host": host, "port": int(port), "extra": extra}

    def primary_of(self, key: str) -> RedisNode:
        """Return the node that has a key, as most nodes see it.

        Raises:
            LookupError: No node that runs has it.
        """
        slot = key_slot(key.encode())
        for node in self.nodes:
            for start, end, primary, *_ in node.ask("CLUSTER", "SLOTS") or ():
                if start <= slot <= end:
                    found = self._node(primary[1])
                    if found.child.is_running:
                        return found
        raise LookupError(f"no primary has slot {slot}")

    def replica_of(self, primary: RedisNode) -> RedisNode:
        """Return a replica of a primary.

        Raises:
            StopIteration: It has none.
        """
        own = primary.port
        return next(node for node in self.nodes if _role(node) == ("slave", own))

    def move_slot(self, key: str) -> RedisNode:
        """Move the slot of a key to another primary, with its keys; return that."""
        slot, source = str(key_slot(key.encode())), self.primary_of(key)
        target = next(
            node
            for node in self.nodes
            if node is not source and _role(node)[0] == "master"
        )
        target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", _id(source))
        source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", _id(target))
        names = source.ask("CLUSTER", "GETKEYSINSLOT", slot, "1000")
        if names:
            to = (HOST, str(target.port), "", "0", "10000")
            source.ask("MIGRATE", *to, "KEYS", *map(_text, names))
        for node in (target, source):
            node.ask("CLUSTER", "SETSLOT", slot, "NODE", _id(target))
        wait_until(lambda: self.primary_of(key) is target, "the slot has moved")
        return target

    def wait_for_failover(self, old: RedisNode, key: str) -> RedisNode:
        """Wait until another node has a key, and return that."""

        def new() -> RedisNode | None:
            try:
                found = self.primary_of(key)
            except LookupError:
                return None
            return found if found is not old and _is_ok(found) else None

        wait_until(new, "a replica becomes the primary")
        return self.primary_of(key)

    def wait_until_complete(self) -> None:
        """Wait until all nodes run, and each primary has a replica in sync."""
        wait_until(self._is_complete, "all nodes of the cluster are up")

    def _is_complete(self) -> bool:
        return all(map(_is_ok, self.nodes)) and all(map(_is_in_sync, self.nodes))

    def _node(self, port: int) -> RedisNode:
        return next(node for node in self.nodes if node.port == port)


def _is_ok(node: RedisNode) -> bool:
    info = node.ask("CLUSTER", "INFO")
    return bool(info) and b"cluster_state:ok" in _raw(info)


def _id(node: RedisNode) -> str:
    return _text(node.ask("CLUSTER", "MYID"))


def _text(answer: object) -> str:
    return _raw(answer).decode()


def _role(node: RedisNode) -> tuple[str, int]:
    """Return the role of a node, and the port of its primary."""
    info = node.ask("INFO", "replication") or {}
    return info.get("role", ""), info.get("master_port", 0)


def _is_in_sync(node: RedisNode) -> bool:
    """Return whether a replica has caught up, or a primary has a replica."""
    info = node.ask("INFO", "replication")
    if not info:
        return False
    if info["role"] == "slave":
        return bool(info["master_link_status"] == "up")
    return bool(info["connected_slaves"])


def _raw(info: object) -> bytes:
    """Return an answer as text; redis-py may have parsed it."""
    if isinstance(info, dict):
        return "\n".join(f"{key}:{value}" for key, value in info.items()).encode()
    return info if isinstance(info, bytes) else str(info).encode()


@contextlib.contextmanager
def running_redis_cluster(directory: Path, *options: str) -> Iterator[RedisCluster]:
    """Start a cluster, wait until all is in sync, and end it.

    Args:
        directory: For the data and the logs.
        options: More options of each node's command line.
    """
    with contextlib.ExitStack() as stack:
        watchdog = stack.enter_context(contextlib.closing(Watchdog()))
        nodes = []
        for number in range(2 * PRIMARIES):
            node = make_node(
                directory / f"node-{number}",
                watchdog,
                *("--cluster-enabled", "yes"),
                *("--cluster-node-timeout", str(NODE_TIMEOUT)),
                *options,
                port=_free_port(),
            )
            node.child.start()
            stack.callback(node.child.stop)
            nodes.append(node)
        cluster = RedisCluster(tuple(nodes))
        _join(cluster)
        yield cluster


def _join(cluster: RedisCluster) -> None:
    """Make six nodes one cluster."""
    first, primaries = cluster.nodes[0], cluster.nodes[:PRIMARIES]
    size = REDIS_CLUSTER_HASH_SLOTS // PRIMARIES + 1
    slots = [str(slot) for slot in range(REDIS_CLUSTER_HASH_SLOTS)]
    for number, node in enumerate(primaries):
        node.ask("CLUSTER", "ADDSLOTS", *slots[number * size : (number + 1) * size])
    for node in cluster.nodes[1:]:
        node.ask("CLUSTER", "MEET", HOST, str(first.port))
    wait_until(lambda: all(map(_is_ok, cluster.nodes)), "all nodes know each other")
    for primary, replica in zip(primaries, cluster.nodes[PRIMARIES:], strict=True):

        def follows(replica: RedisNode = replica, node_id: str = _id(primary)) -> bool:
            # Refused until the replica knows its primary.
            return bool(replica.ask("CLUSTER", "REPLICATE", node_id))

        wait_until(follows, "a replica follows its primary")
    cluster.wait_until_complete()


def _free_port() -> int:
    """Return a free port whose bus port is free, too."""
    while True:
        port = free_port()
        with contextlib.suppress(OSError), socket.socket() as bus:
            bus.bind((HOST, port + BUS_OFFSET))
            return port
