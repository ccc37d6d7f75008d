# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The fields of a Redis connection that say how its primary is found.

Imported only for a Redis Cluster, and for a Redis with Sentinels.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from runqy_provider.connection_fields import boolean
from runqy_provider.errors import Misconfigured

if TYPE_CHECKING:
    from collections.abc import Mapping

REDIS_PORT, SENTINEL_PORT, MAX_PORT = 6379, 26379, 65535

#: Host and port of a server.
Address = tuple[str, int]

_ADDRESS = re.compile(
    r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+)\]|(?P<host>[^\s:@/\[\]]+))(?::(?P<port>\d{1,5}))?"
)


@dataclass(frozen=True)
class PrimaryLookup:
    """Servers to ask for the primary whenever a connection to Redis is opened.

    Attributes:
        nodes: The servers that may be asked: nodes of a cluster, or Sentinels.
        master: The name that Sentinels have for the primary and its replicas; None: it
            is a cluster.
        login: Username and password for Sentinels, as arguments for a redis-py client.
    """

    nodes: tuple[Address, ...]
    master: str | None = None
    login: tuple[tuple[str, Any], ...] = field(default=(), repr=False)

    def describe(self, db: int) -> str:
        """Return the text that messages show in place of the address of one Redis."""
        nodes = ", ".join(
            f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            for host, port in self.nodes
        )
        if self.master is None:
            return f"{nodes} (cluster)"
        return f"{self.master}/{db} (Sentinels: {nodes})"


def lookup_of(
    conn_id: str, own: Address | None, db: int, extra: Mapping[str, Any]
) -> PrimaryLookup | None:
    """Return how the primary is found; None if it is at the connection's host.

    Args:
        conn_id: Id of the Airflow connection.
        own: Its host and port; None if it has no host.
        db: Its database.
        extra: Its extra.

    Raises:
        Misconfigured: A field is not valid, or contradicts another one.
    """
    nodes = addresses(extra.get("startup_nodes"), "startup_nodes", conn_id, REDIS_PORT)
    sentinels = addresses(extra.get("sentinels"), "sentinels", conn_id, SENTINEL_PORT)
    master = str(extra.get("sentinel_master") or "").strip()
    is_cluster = boolean(extra.get("cluster"), "cluster", conn_id)
    if bool(sentinels) != bool(master):
        raise Misconfigured(
            f"Redis connection {conn_id!r} has only one of sentinels and "
            'sentinel_master. Set both in its extra: "sentinels": ["host:26379", ...], '
            "and the name of the primary in the Sentinels' configuration, as in "
            '"sentinel_master": "mymaster".'
        )
    if is_cluster and sentinels:
        raise Misconfigured(
            f"Redis connection {conn_id!r} has both cluster and sentinels. A cluster "
            "has no Sentinels: remove one of them from its extra."
        )
    if nodes and not is_cluster:
        raise Misconfigured(
            f"Redis connection {conn_id!r} has startup_nodes, which only a cluster "
            'has. Add "cluster": true to its extra, or remove startup_nodes.'
        )
    if sentinels:
        return PrimaryLookup(sentinels, master, _sentinel_login(extra))
    if not is_cluster:
        return None
    if db:
        raise Misconfigured(
            f"Redis connection {conn_id!r} is a cluster, and has db {db}. A cluster "
            "has only database 0: remove db from the connection."
        )
    if own is not None:
        nodes = (own, *nodes)
    if not nodes:
        raise Misconfigured(
            f"Redis connection {conn_id!r} has no host: set the name or address of a "
            "node of the cluster, and others as startup_nodes in its extra."
        )
    return PrimaryLookup(tuple(dict.fromkeys(nodes)))


def _sentinel_login(extra: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple(
        (name, str(extra[f"sentinel_{name}"]))
        for name in ("username", "password")
        if extra.get(f"sentinel_{name}")
    )


def addresses(
    value: Any, name: str, conn_id: str, default_port: int
) -> tuple[Address, ...]:
    """Return a field that lists servers: a list, or a text with commas.

    Args:
        value: The field: each entry is ``host``, ``host:port`` or ``[IPv6]:port``.
        name: Its name.
        conn_id: The connection.
        default_port: The port of an entry without one.

    Raises:
        Misconfigured: An entry is not an address. The message does not quote it: it may
            contain a password.
    """
    entries = value if isinstance(value, list) else str(value or "").split(",")
    found = []
    for number, entry in enumerate(entries, 1):
        match = _ADDRESS.fullmatch(str(entry).strip())
        port = int((match and match["port"]) or default_port)
        if match is not None and 0 < port <= MAX_PORT:
            found.append((match["host"] or match["ipv6"], port))
        elif str(entry).strip():
            raise Misconfigured(
                f"Entry {number} of {name} in connection {conn_id!r} is not an "
                "address. Write hosts and ports only, such as "
                f'["redis-1:{default_port}", "redis-2:{default_port}"]; logins have '
                "fields of their own."
            )
    return tuple(found)
