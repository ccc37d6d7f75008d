# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The last sign of life of the jobs on one page: their progress, in the inbox."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import TYPE_CHECKING, cast

from runqy_provider.caching import ExpiringDict
from runqy_provider.errors import Misconfigured, NoAccess, SinkUnavailable
from runqy_provider.inbox import keys
from runqy_provider.inbox.progress import Progress
from runqy_provider.plugins.page.connections import load_connection
from runqy_provider.plugins.page.look import opened
from runqy_provider.python_compat import timeout

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from runqy_provider.connections import RedisConnection
    from runqy_provider.plugins.page.waits import Wait

#: Seconds within which an inbox must answer: the page waits for it.
TIMEOUT = 0.5

#: Seconds for which a connection is remembered, and an inbox that did not answer is
#: not asked again.
TTL = 10.0


class SignsOfLife:
    """Reads the progress of the rows that are shown, and of no others."""

    def __init__(self) -> None:
        self._inboxes: ExpiringDict[RedisConnection] = ExpiringDict(1000)
        self._unavailable: ExpiringDict[bool] = ExpiringDict(1000)

    async def read(self, waits: Iterable[Wait]) -> dict[str, Progress]:
        """Return what is known, by key of the wait; one round trip per connection.

        An inbox that does not answer at once is left out.
        """
        by_conn_id: dict[str, list[Wait]] = defaultdict(list)
        for wait in waits:
            by_conn_id[wait.conn_id].append(wait)
        found = await asyncio.gather(
            *(self._read_one(conn_id, rows) for conn_id, rows in by_conn_id.items())
        )
        return {key: progress for part in found for key, progress in part.items()}

    async def _read_one(
        self, conn_id: str, rows: Sequence[Wait]
    ) -> dict[str, Progress]:
        if self._unavailable.get(conn_id):
            return {}
        try:
            async with timeout(TIMEOUT):
                return await self._progress_of(conn_id, rows)
        except (asyncio.TimeoutError, Misconfigured, SinkUnavailable, NoAccess):
            # The table of connections says why.
            self._unavailable.set(conn_id, value=True, ttl=TTL)
            return {}

    async def _progress_of(
        self, conn_id: str, rows: Sequence[Wait]
    ) -> dict[str, Progress]:
        redis = self._inboxes.get(conn_id)
        if redis is None:
            redis = (await asyncio.to_thread(load_connection, conn_id)).redis
            if redis is None:
                return {}
            self._inboxes.set(conn_id, redis, TTL)
        node, in_keys = redis.for_namespace(conn_id), redis.in_keys(conn_id)
        async with opened(node, "read progress") as client:
            wanted = [keys.progress(in_keys, row.delivery_id) for row in rows]
            texts = cast("list[bytes | None]", await client.mget(wanted))
        return {
            row.key: Progress.from_json(text)
            for row, text in zip(rows, texts, strict=True)
            if text is not None
        }
