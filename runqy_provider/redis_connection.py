# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The fields of a Redis connection: a Redis, a Redis Cluster, or one with Sentinels."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from runqy_provider.connections import boolean, extra_of, first_given, whole_number
from runqy_provider.errors import Misconfigured

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runqy_provider.connections import ConnectionLike

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


@dataclass(frozen=True)
class RedisConnection:
    """How to reach a Redis: the inbox's, or runqy's own.

    Attributes:
        conn_id: Id of the Airflow connection.
        address: ``host:port/db``, for messages.
        options: Keyword arguments for a redis-py client, as pairs: settings that are
            equal share a client, so they must be hashable.
        lookup: How the primary is found; None: it is at the address.
        hash_tag: The part of all keys that decides which node of a cluster has them;
            None if none was chosen, or if it is not a cluster.
    """

    conn_id: str
    address: str
    options: tuple[tuple[str, Any], ...] = field(repr=False)
    lookup: PrimaryLookup | None = None
    hash_tag: str | None = None

    @property
    def is_cluster(self) -> bool:
        return self.lookup is not None and self.lookup.master is None

    @property
    def has_failover(self) -> bool:
        """Whether another Redis may become the primary; it is then found."""
        return self.lookup is not None

    @property
    def passwords(self) -> list[str]:
        """What must not appear in a message."""
        login = () if self.lookup is None else self.lookup.login
        return [value for name, value in (*self.options, *login) if name == "password"]

    def for_namespace(self, namespace: str) -> RedisConnection:
        """Return the connection for a namespace: in a cluster, one node has it."""
        if not self.is_cluster:
            return self
        return replace(self, hash_tag=self.in_keys(namespace))

    def in_keys(self, namespace: str) -> str:
        """Return a namespace as it is part of keys.

        In a cluster it has braces: so all keys of a namespace are on one node, and one
        script can use them.
        """
        return f"{{{namespace}}}" if self.is_cluster else namespace

    @classmethod
    def from_connection(cls, connection: ConnectionLike) -> RedisConnection:
        """Read an Airflow connection of type ``redis``, as its own provider does.

        Raises:
            Misconfigured: The host is missing, or a field is not valid.
        """
        extra, conn_id = extra_of(connection), connection.conn_id
        host, port = (connection.host or "").strip("[]"), connection.port or REDIS_PORT
        db = whole_number(
            first_given(extra.get("db"), connection.schema, 0), "db", conn_id
        )
        own = (host, port) if host else None
        lookup = _lookup_of(conn_id, own, db, extra)
        if not host and lookup is None:
            raise Misconfigured(
                f"Redis connection {conn_id!r} has no host: set the name or address "
                "of the Redis server."
            )
        options: dict[str, Any] = {"host": host, "port": port, "db": db}
        # The scheme of a URI, unless a field says otherwise.
        scheme_ssl = connection.conn_type == "rediss" or None
        ssl = first_given(extra.get("ssl"), scheme_ssl)
        if ssl is not None:
            options["ssl"] = boolean(ssl, "ssl", conn_id)
        if connection.login:
            options["username"] = connection.login
        if connection.password:
            options["password"] = connection.password
        if first_given(extra.get("ssl_check_hostname")) is not None:
            options["ssl_check_hostname"] = boolean(
                extra["ssl_check_hostname"], "ssl_check_hostname", conn_id
            )
        for name in ("ssl_cert_reqs", "ssl_ca_certs", "ssl_keyfile", "ssl_certfile"):
            if first_given(extra.get(name)) is not None:
                options[name] = extra[name]
        shown = f"[{host}]" if ":" in host else host
        address = f"{shown}:{port}/{db}"
        if lookup is not None:
            # They are set whenever a connection is opened.
            del options["host"], options["port"]
            address = lookup.describe(db)
        return cls(conn_id, address, tuple(options.items()), lookup)


def _lookup_of(
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
    nodes = _addresses(extra.get("startup_nodes"), "startup_nodes", conn_id, REDIS_PORT)
    sentinels = _addresses(extra.get("sentinels"), "sentinels", conn_id, SENTINEL_PORT)
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


def _addresses(
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
