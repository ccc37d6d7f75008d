# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Ask the nodes of a cluster, or Sentinels, where the primary is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import (
    AuthenticationError,
    NoPermissionError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.retry import Retry

from runqy_provider.errors import Misconfigured

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runqy_provider.connections import RedisConnection
    from runqy_provider.redis_lookup import Address

#: Seconds within which a node must answer, before another one is asked.
ASK_TIMEOUT = 2.0

#: Any node gives the same answer.
_DENIED = (AuthenticationError, NoPermissionError)


class Inquiry:
    """The question, whom to ask, and what the answer means.

    Args:
        connection: A connection with a ``lookup``.

    Raises:
        Misconfigured: It is a cluster, and no namespace was chosen.
    """

    def __init__(self, connection: RedisConnection) -> None:
        lookup = connection.lookup
        if lookup is None or (connection.is_cluster and connection.hash_tag is None):
            raise Misconfigured(
                f"Redis connection {connection.conn_id!r} is a cluster, which only the "
                "inbox can use. Name a single Redis here, or one with Sentinels."
            )
        options = dict(connection.options)
        options.pop("db", None)
        self.question = ["CLUSTER SLOTS"]
        if lookup.master is not None:
            self.question = ["SENTINEL GET-MASTER-ADDR-BY-NAME", lookup.master]
            # Sentinels have users of their own; certificates are the same.
            for name in ("username", "password"):
                options.pop(name, None)
            options.update(lookup.login)
        self.options = {
            **options,
            "socket_timeout": ASK_TIMEOUT,
            "socket_connect_timeout": ASK_TIMEOUT,
        }
        self.nodes = self._given = lookup.nodes
        self._is_cluster = connection.is_cluster
        self._slot = key_slot((connection.hash_tag or "").encode())

    def understand(self, answer: Any, asked: Address) -> Address:
        """Return where the primary is, and remember which others can be asked.

        Raises:
            ResponseError: The answer does not contain it.
        """
        if not self._is_cluster:
            if answer is None:
                raise ResponseError(f"it has no primary named {self.question[1]!r}")
            return _address(answer, asked)
        found = None
        known = [asked]
        for start, end, *nodes in answer:
            if start <= self._slot <= end:
                found = _address(nodes[0], asked)
            known += [_address(node, asked) for node in nodes]
        if found is None:
            raise ResponseError(f"no node has slot {self._slot}")
        # If that node hands the slot over, it is the first to know the new node.
        self.nodes = tuple(dict.fromkeys([found, *known, *self._given]))
        return found

    def failed(self, errors: Mapping[Address, RedisError]) -> RedisConnectionError:
        """Return the error if no node said where the primary is."""
        said = "; ".join(
            f"{host}:{port}: {error}" for (host, port), error in errors.items()
        )
        return RedisConnectionError(f"it is not known where the primary is ({said})")


def _address(node: Any, asked: Address) -> Address:
    """Return host and port from an answer; an empty host: that of the asked node."""
    host, port = node[:2]
    host = host.decode() if isinstance(host, bytes) else host
    return host or asked[0], int(port)


class Finder:
    """Finds the primary for sync code.

    Args:
        connection: A connection with a ``lookup``.

    Raises:
        Misconfigured: It is a cluster, and no namespace was chosen.
    """

    def __init__(self, connection: RedisConnection) -> None:
        self._inquiry = Inquiry(connection)

    def find(self) -> Address:
        """Return where the primary is.

        Raises:
            RedisConnectionError: No node knows it.
            NoPermissionError: A node denies access; likewise AuthenticationError.
        """
        inquiry = self._inquiry
        errors: dict[Address, RedisError] = {}
        for host, port in inquiry.nodes:
            retry = Retry(NoBackoff(), 0)
            try:
                with Redis(host, port, retry=retry, **inquiry.options) as node:
                    answer = node.execute_command(*inquiry.question)
                return inquiry.understand(answer, (host, port))
            except _DENIED:
                raise
            except RedisError as error:
                errors[host, port] = error
        raise inquiry.failed(errors)


class AsyncFinder:
    """The same for async code."""

    def __init__(self, connection: RedisConnection) -> None:
        self._inquiry = Inquiry(connection)

    async def find(self) -> Address:
        """Return where the primary is.

        Raises:
            RedisConnectionError: No node knows it.
            NoPermissionError: A node denies access; likewise AuthenticationError.
        """
        inquiry = self._inquiry
        errors: dict[Address, RedisError] = {}
        for host, port in inquiry.nodes:
            retry = AsyncRetry(NoBackoff(), 0)
            try:
                async with AsyncRedis(
                    host=host, port=port, retry=retry, **inquiry.options
                ) as node:
                    ask: Any = node.execute_command  # it has no types
                    answer = await ask(*inquiry.question)
                return inquiry.understand(answer, (host, port))
            except _DENIED:
                raise
            except RedisError as error:
                errors[host, port] = error
        raise inquiry.failed(errors)
