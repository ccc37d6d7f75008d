# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""A table as a source for a waiter: one SELECT for all waits, NOTIFY as the hint."""

from __future__ import annotations

import asyncio
import importlib
from typing import TYPE_CHECKING, Any

from runqy_delivery.wire import COMPLETED, FAILED
from runqy_provider.errors import NotThere, SinkUnavailable
from runqy_provider.sinks.sql_engine import sql_engine
from runqy_provider.waiting.arrival import Answer, Arrival

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Mapping

    from runqy_provider.sinks.sql_table import SqlTable

#: Seconds after which a silent connection is asked whether it still stands.
PING_INTERVAL = 30.0


class SqlArrivals:
    """Rows that come to their end; addresses are their ids.

    Args:
        table: The table.
        channel: Channel of PostgreSQL's on which ids are told.
        where: Makes of an id the address of its result.
    """

    def __init__(
        self, table: SqlTable, channel: str, where: Callable[[str], str]
    ) -> None:
        self._table = table
        self._channel = channel
        self._where = where
        # Rows that were there: one that is not there any more was deleted.
        self._seen: set[str] = set()

    async def look(self, addresses: Collection[str]) -> Mapping[str, Answer]:
        """Look for all of them at once, in a thread."""
        rows = await asyncio.to_thread(lambda: list(self._table.look(addresses)))
        found = {row.id: row for row in rows}
        answers: dict[str, Answer] = {}
        for row_id in addresses:
            row = found.get(row_id)
            if row is None and row_id in self._seen:
                answers[row_id] = NotThere(
                    f"Row {row_id} of {self._table.place} (connection "
                    f"{self._table.conn_id!r}) was deleted while its job was waited "
                    "for. Its result cannot come home; clear the task to run it again."
                )
            elif row is not None and row.status in (COMPLETED, FAILED):
                where = self._where(row_id)
                answers[row_id] = Arrival(row.status, where, row.completed_at)
        self._seen = (self._seen | found.keys()) - answers.keys()
        return answers

    async def hints(self) -> AsyncIterator[str | None]:
        """Yield ids that PostgreSQL notifies of; other databases do not tell."""
        engine = await asyncio.to_thread(sql_engine, self._table.conn_id)
        if engine.dialect.name != "postgresql":
            return
        try:
            psycopg: Any = importlib.import_module("psycopg")
        except ImportError:
            return
        _, options = engine.dialect.create_connect_args(engine.url)
        try:
            connection = await psycopg.AsyncConnection.connect(
                **options, autocommit=True
            )
            async with connection:
                # A name of letters and digits: see SqlTable, and the sink's check.
                await connection.execute(f"LISTEN {self._channel}")
                yield None
                while True:
                    async for note in connection.notifies(timeout=PING_INTERVAL):
                        yield note.payload
                    await connection.execute("SELECT 1")
        except psycopg.Error as error:
            raise SinkUnavailable(
                f"Could not listen on channel {self._channel} (connection "
                f"{self._table.conn_id!r}): {type(error).__name__}: {error}"
            ) from error

    async def aclose(self) -> None:
        """Forget; connections belong to the process's pool."""
        self._seen.clear()
