# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Read the deliveries of a channel, each at least once."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any, cast

from redis.exceptions import ResponseError

from runqy_provider.inbox import keys
from runqy_provider.redis_client import async_client, redis_errors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis.asyncio import Redis

    from runqy_provider.connections import RedisConnection

#: Milliseconds for which Redis holds back its answer while nothing arrives.
BLOCK = 5000

#: How many deliveries are read at once.
AT_ONCE = 100

#: One delivery of a channel: its id in the stream, and its event.
Entry = tuple[str, dict[str, Any]]


class ChannelReader:
    """Reads one channel for one group of readers, which shares what it has read.

    Args:
        redis: The Redis of the inbox.
        namespace: The namespace; see ``keys``.
        channel: The channel.
        group: Name of the group: each group reads all deliveries.
    """

    def __init__(
        self, redis: RedisConnection, namespace: str, channel: str, group: str
    ) -> None:
        self._connection = redis.for_namespace(namespace)
        self._key = keys.channel(redis.in_keys(namespace), channel)
        self._group = group
        self._consumer = uuid.uuid4().hex
        self._client: Redis = async_client(self._connection, most_connections=2)
        self._is_open = False

    async def read(self) -> list[Entry]:
        """Return deliveries that came; first those that were never acknowledged.

        Returns:
            An empty list where none came for some seconds.

        Raises:
            SinkUnavailable: Redis is unavailable.
            NoAccess: It denies access.
        """
        with redis_errors(self._connection, "read a channel"):
            if not self._is_open and (left := await self._open()):
                return left
            try:
                found: Any = await self._client.xreadgroup(
                    self._group,
                    self._consumer,
                    {self._key: ">"},
                    count=AT_ONCE,
                    block=BLOCK,
                )
            except ResponseError as error:
                if "NOGROUP" not in str(error):
                    raise
                # The stream expired, as nothing was delivered for a long time.
                self._is_open = False
                return []
        return [entry for _, entries in found for entry in _entries(entries)]

    async def acknowledge(self, entry_ids: Sequence[str]) -> None:
        """Record that deliveries are handled, so that they are not read again.

        Raises:
            SinkUnavailable: Redis is unavailable.
        """
        with redis_errors(self._connection, "acknowledge deliveries"):
            await self._client.xack(self._key, self._group, *entry_ids)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _open(self) -> list[Entry]:
        """Join the group, and take over what another reader has left behind."""
        try:
            await self._client.xgroup_create(
                self._key, self._group, id="0", mkstream=True
            )
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise
        self._is_open = True
        found: list[Entry] = []
        start = b"0-0"
        while True:
            answer: Any = await self._client.xautoclaim(
                self._key, self._group, self._consumer, 0, start, count=AT_ONCE
            )
            start = answer[0]
            found += _entries(answer[1])
            if start == b"0-0":
                return found


def _entries(rows: Any) -> list[Entry]:
    """Return entries of a stream; those that were deleted meanwhile are left out."""
    return [
        (cast("bytes", entry_id).decode(), json.loads(fields[b"event"]))
        for entry_id, fields in rows
        if fields
    ]
