# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""What the page shows, loaded at most once every few seconds for all users."""

from __future__ import annotations

import asyncio
import math
import time
from collections import defaultdict
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from runqy_provider.caching import AsyncTtlCache
from runqy_provider.plugins.page.look import (
    PARTS,
    list_connections,
    load_connection,
    read_progress,
)
from runqy_provider.plugins.page.waits import WaitReader, list_waits

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

    from runqy_provider.inbox.keys import Progress
    from runqy_provider.plugins.page.waits import Filter, Wait, Waits

#: Seconds for which the waiting tasks, and what is known of connections, are current.
WAITS_TTL, LOOK_TTL = 2.0, 4.0

#: Seconds after which an old answer is dropped and the state is not known: longer than
#: a server may take to answer before it counts as unavailable.
MAX_STALE = 16.0

#: Seconds that a response waits for a part of a connection; one that takes longer
#: comes with a later response.
WAIT_LIMIT = 0.3


class PageData:
    """Reads Airflow's database, runqy and Redis; knows nothing of users."""

    def __init__(self) -> None:
        self._cache: AsyncTtlCache[Any] = AsyncTtlCache(MAX_STALE)
        self._reader = WaitReader()

    async def list_connections(self) -> Mapping[str, str | None]:
        """Return the ids of all runqy connections, and the team of each."""

        async def load() -> tuple[Mapping[str, str | None], float]:
            return await asyncio.to_thread(list_connections), LOOK_TTL

        teams: Mapping[str, str | None] = await self._cache.get("ids", load)
        return teams

    async def look_at(self, conn_ids: Iterable[str]) -> list[dict[str, Any]]:
        """Return what is known of connections, as plain JSON.

        Parts that have not answered yet are left out; ``checked_at`` is set once all
        have.
        """
        return list(await asyncio.gather(*map(self._look_at, conn_ids)))

    async def _look_at(self, conn_id: str) -> dict[str, Any]:
        loaded = await self._connection(conn_id)
        if loaded is None:
            return {"conn_id": conn_id}
        if isinstance(loaded[1], str):
            checked_at, problem = loaded
            return {"conn_id": conn_id, "checked_at": checked_at, "problem": problem}
        found = await asyncio.gather(
            *(self._part(name, conn_id, look, *loaded) for name, look in PARTS.items())
        )
        view = {"conn_id": conn_id, "problem": ""}
        for _, fields in filter(None, found):
            view.update(fields)
        if all(found):
            view["checked_at"] = min(at for at, _ in found)
        return view

    async def _connection(self, conn_id: str) -> Any:
        """Return when a connection was loaded, and its settings or a problem."""
        return await self._part(
            "connection", conn_id, load_connection, math.inf, conn_id
        )

    async def _part(
        self,
        name: str,
        conn_id: str,
        look: Callable[[Any], Awaitable[Any]],
        loaded_at: float,
        of: Any,
    ) -> Any:
        """Return when one part of a connection was asked for, and what was found.

        If the settings with which it was asked for are older, the time is theirs.
        """

        async def load() -> tuple[tuple[float, Any], float]:
            began_at = min(loaded_at, time.time())
            return (began_at, await look(of)), LOOK_TTL

        return await self._cache.get_soon(f"{name} {conn_id}", load, WAIT_LIMIT)

    async def list_waits(self, dag_ids: set[str], wanted: Filter) -> dict[str, Any]:
        """Return one page of the waiting tasks, as plain JSON."""

        async def load() -> tuple[Waits, float]:
            return await asyncio.to_thread(self._reader.read), WAITS_TTL

        waits: Waits = await self._cache.get("waits", load)
        listing = await asyncio.to_thread(list_waits, waits.rows, dag_ids, wanted)
        progress = await self._progress_of(listing["rows"])
        rows = [
            _row(wait, progress.get((wait.conn_id, wait.delivery_id)))
            for wait in listing["rows"]
        ]
        return {
            **listing,
            "is_complete": waits.is_complete,
            "triggerer_problem": waits.triggerer_problem,
            "rows": rows,
        }

    async def _progress_of(
        self, waits: Sequence[Wait]
    ) -> dict[tuple[str, str], Progress]:
        """Return the progress of the rows that are shown."""
        ids: dict[str, list[str]] = defaultdict(list)
        for wait in waits:
            ids[wait.conn_id].append(wait.delivery_id)

        async def read(conn_id: str) -> Mapping[str, Progress]:
            loaded = await self._connection(conn_id)
            if loaded is None or isinstance(loaded[1], str):
                return {}
            inbox = await self._part("inbox", conn_id, PARTS["inbox"], *loaded)
            if inbox is None or inbox[1]["inbox"]["problem"]:
                return {}
            return await read_progress(loaded[1], ids[conn_id])

        found = await asyncio.gather(*map(read, ids))
        return {
            (conn_id, delivery_id): progress
            for conn_id, part in zip(ids, found, strict=True)
            for delivery_id, progress in part.items()
        }

    async def aclose(self) -> None:
        """Stop what is being loaded."""
        await self._cache.aclose()


def _row(wait: Wait, progress: Progress | None) -> dict[str, Any]:
    return {**asdict(wait), "progress": None if progress is None else vars(progress)}
