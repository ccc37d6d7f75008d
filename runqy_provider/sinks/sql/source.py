# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""A table as a source for a waiter: one SELECT for all waits, NOTIFY as the hint."""

from __future__ import annotations

import asyncio
import importlib
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runqy_delivery.wire import COMPLETED, FAILED
from runqy_provider.errors import ResultLost, RunqyError, SinkUnavailable
from runqy_provider.sinks.sql.engine import connect_arguments, sql_engine
from runqy_provider.sinks.sql.timeouts import BOUND, cut_after
from runqy_provider.waiters.source import Answer, Arrival

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Mapping

    from runqy_provider.sinks.sql.table import SqlTable

#: Seconds after which a silent connection is asked whether it still stands.
PING_INTERVAL = 30.0

#: Seconds for which a row that should be there must be missing: one look at an attempt
#: before is to say no more than that nothing has come.
MISSING_GRACE = 3.0

#: Drivers whose engines' arguments are psycopg's, too.
_LIKE_PSYCOPG = ("psycopg", "psycopg2")

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


@dataclass
class _Sight:
    """What is known of a row that is waited for; times are monotonic."""

    asked: float
    was_there: bool = False
    missing_since: float | None = None


class SqlArrivals:
    """Rows that come to their end; addresses are their ids.

    Args:
        table: The table.
        channel: Channel of PostgreSQL's on which ids are told.
        where: Makes of an id the address of its result.
        is_inserted: True where each row was there before anybody looks for it: one
            that is missing was deleted.
        forget_after: Seconds after which a row that is not asked for any more is
            forgotten.
    """

    def __init__(
        self,
        table: SqlTable,
        channel: str,
        where: Callable[[str], str],
        *,
        is_inserted: bool = False,
        forget_after: float = 60.0,
    ) -> None:
        self._table = table
        self._channel = channel
        self._where = where
        self._is_inserted = is_inserted
        self._forget_after = forget_after
        self._sights: dict[str, _Sight] = {}

    async def look(self, addresses: Collection[str]) -> Mapping[str, Answer]:
        """Look for all of them at once, in a thread."""
        try:
            rows = await asyncio.to_thread(lambda: list(self._table.look(addresses)))
        except SinkUnavailable:
            raise
        except RunqyError as error:
            # A table that is gone, or refuses us, ends the waits, not their waiter.
            return dict.fromkeys(addresses, error)
        found = {_same(row.id): row for row in rows}
        now = time.monotonic()
        answers: dict[str, Answer] = {}
        for row_id in addresses:
            row = found.get(_same(row_id))
            if self._is_deleted(row_id, row is not None, now):
                answers[row_id] = ResultLost(
                    f"Row {row_id} of {self._table.place} (connection "
                    f"{self._table.conn_id!r}) was deleted while its job was waited "
                    "for. Its result is lost: a retry, or a clear, runs it again."
                )
            elif row is not None and row.status in (COMPLETED, FAILED):
                where = self._where(row_id)
                answers[row_id] = Arrival(row.status, where, row.completed_at)
        self._forget(answers, now)
        return answers

    def _is_deleted(self, row_id: str, is_there: bool, now: float) -> bool:
        sight = self._sights.setdefault(row_id, _Sight(now))
        sight.asked = now
        if is_there:
            sight.was_there, sight.missing_since = True, None
            return False
        if sight.missing_since is None:
            sight.missing_since = now
        # A row that was there may be told gone at once.
        return sight.was_there or (
            self._is_inserted and now - sight.missing_since >= MISSING_GRACE
        )

    def _forget(self, ended: Collection[str], now: float) -> None:
        """Forget rows that are waited for no more; a source hears of no such end."""
        self._sights = {
            row_id: sight
            for row_id, sight in self._sights.items()
            if row_id not in ended and now - sight.asked <= self._forget_after
        }

    async def hints(self) -> AsyncIterator[str | None]:
        """Yield ids that PostgreSQL notifies of; other databases do not tell."""
        engine = await asyncio.to_thread(sql_engine, self._table.conn_id)
        if engine.dialect.name != "postgresql" or engine.driver not in _LIKE_PSYCOPG:
            return
        try:
            psycopg: Any = importlib.import_module("psycopg")
        except ImportError:
            return
        options = {**connect_arguments(engine), "autocommit": True}
        try:
            connection = await psycopg.AsyncConnection.connect(**options)
            async with connection:
                # Quoted, as pg_notify takes the name: bare, it would lose its capitals.
                with cut_after(connection, BOUND):
                    await connection.execute(f'LISTEN "{self._channel}"')
                yield None
                while True:
                    async for note in connection.notifies(timeout=PING_INTERVAL):
                        yield note.payload
                    with cut_after(connection, BOUND):
                        await connection.execute("SELECT 1")
        except (psycopg.Error, TimeoutError) as error:
            raise SinkUnavailable(
                f"Could not listen on channel {self._channel} (connection "
                f"{self._table.conn_id!r}): {type(error).__name__}: {error}"
            ) from error

    async def aclose(self) -> None:
        """Forget; connections belong to the process's pool."""
        self._sights.clear()


def _same(row_id: str) -> str:
    """Return what ids of one row have in common: some databases write UUIDs large."""
    return row_id.lower() if _UUID.fullmatch(row_id) else row_id
