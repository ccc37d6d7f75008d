# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""What the page shows, loaded at most once every few seconds for all users."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

from runqy_provider.caching import AsyncTtlCache
from runqy_provider.plugins.page.connections import list_connections
from runqy_provider.plugins.page.latest import LatestValues
from runqy_provider.plugins.page.listing import list_waits
from runqy_provider.plugins.page.look import look_at
from runqy_provider.plugins.page.signs_of_life import SignsOfLife
from runqy_provider.plugins.page.waits import WaitReader

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from runqy_provider.inbox.progress import Progress
    from runqy_provider.plugins.page.listing import Filter
    from runqy_provider.plugins.page.look import ConnectionView
    from runqy_provider.plugins.page.waits import Wait, Waits

#: Seconds for which the waiting tasks, and each connection, are remembered.
WAITS_TTL, LOOK_TTL, IDS_TTL = 2.0, 4.0, 4.0

#: Seconds that a response waits for a connection; one that takes longer comes with a
#: later response.
WAIT_LIMIT = 0.3


class PageData:
    """Reads Airflow's database, runqy and Redis; knows nothing of users."""

    def __init__(self) -> None:
        self._waits: AsyncTtlCache[Waits] = AsyncTtlCache()
        self._ids: AsyncTtlCache[Mapping[str, str | None]] = AsyncTtlCache()
        self._views: LatestValues[ConnectionView] = LatestValues(LOOK_TTL, WAIT_LIMIT)
        self._reader = WaitReader()
        self._signs_of_life = SignsOfLife()

    async def list_connections(self) -> Mapping[str, str | None]:
        """Return the ids of all runqy connections, and the team of each."""

        async def load() -> tuple[Mapping[str, str | None], float]:
            return await asyncio.to_thread(list_connections), IDS_TTL

        return await self._ids.get("", load)

    async def look_at(self, conn_ids: Sequence[str]) -> list[dict[str, Any]]:
        """Return what is known of connections, as plain JSON.

        One that has not answered yet has only its ``conn_id``.
        """
        self._views.keep_only(await self.list_connections())
        views = await asyncio.gather(
            *(self._views.get(name, partial(look_at, name)) for name in conn_ids)
        )
        return [
            {"conn_id": name} if view is None else asdict(view)
            for name, view in zip(conn_ids, views, strict=True)
        ]

    async def list_waits(self, dag_ids: set[str], wanted: Filter) -> dict[str, Any]:
        """Return one page of the waiting tasks, as plain JSON."""

        async def load() -> tuple[Waits, float]:
            return await asyncio.to_thread(self._reader.read), WAITS_TTL

        waits = await self._waits.get("", load)
        listing = await asyncio.to_thread(list_waits, waits.rows, dag_ids, wanted)
        progress = await self._signs_of_life.read(listing.rows)
        return {
            "total": listing.total,
            "matching": listing.matching,
            "offset": listing.offset,
            "is_complete": waits.is_complete,
            "queues": [
                {"name": name, "waits": count}
                for name, count in sorted(listing.by_queue.items())
            ],
            "rows": [_row(wait, progress.get(wait.key)) for wait in listing.rows],
        }

    async def aclose(self) -> None:
        """Stop what is being loaded."""
        await self._views.aclose()


def _row(wait: Wait, progress: Progress | None) -> dict[str, Any]:
    return {**asdict(wait), "progress": None if progress is None else vars(progress)}
