# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""A table as a source for a waiter: one SELECT for all waits, and NOTIFY as hints."""

from __future__ import annotations

import importlib
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runqy_delivery.wire import COMPLETED, FAILED
from runqy_provider.airflow_compat import in_thread
from runqy_provider.errors import ResultLost, RunqyError, SinkUnavailable
from runqy_provider.sinks.sql.engine import connect_arguments, sql_engine
from runqy_provider.sinks.sql.timeouts import TIMEOUT, abort_after
from runqy_provider.waiters.source import Arrival, PollResult, StatusUpdate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Mapping

    from runqy_provider.sinks.sql.table import SqlTable

#: Seconds without a notification after which the connection is tested.
PING_INTERVAL = 30.0

#: Seconds for which an inserted row must be missing before it counts as deleted. A
#: single poll, as for the job of a previous attempt, therefore never reports a
#: deletion.
MISSING_GRACE = 3.0

#: Drivers whose connection arguments psycopg accepts, too.
_PSYCOPG_DRIVERS = ("psycopg", "psycopg2")

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


@dataclass
class _RowState:
    """What the source knows of a row.

    Attributes:
        polled_at: When the row was last polled; times are ``time.monotonic()``.
        existed: Whether it was found before.
        missing_since: When it was first missing; None while it exists.
    """

    polled_at: float
    existed: bool = False
    missing_since: float | None = None


class SqlSource:
    """Polls a table for completed rows; each wait has the id of a row.

    Args:
        table: The table.
        channel: The PostgreSQL channel on which ids are announced.
        result_uri: Returns the URI of the result of a row.
        is_inserted: Whether each row is inserted before it is polled: a missing one was
            then deleted.
        forget_after: Seconds since its last poll after which a row is forgotten.
    """

    def __init__(
        self,
        table: SqlTable,
        channel: str,
        result_uri: Callable[[str], str],
        *,
        is_inserted: bool = False,
        forget_after: float = 60.0,
    ) -> None:
        self._table = table
        self._channel = channel
        self._result_uri = result_uri
        self._is_inserted = is_inserted
        self._forget_after = forget_after
        self._rows: dict[str, _RowState] = {}

    async def poll(self, keys: Collection[str]) -> Mapping[str, PollResult]:
        """Look for all rows at once, in a thread."""
        try:
            rows = await in_thread(lambda: list(self._table.poll(keys)))
        except SinkUnavailable:
            raise
        except RunqyError as error:
            # A table that is gone, or denies access, ends the waits, not the waiter.
            return dict.fromkeys(keys, error)
        found = {_normalized(row.id): row for row in rows}
        now = time.monotonic()
        results: dict[str, PollResult] = {}
        for row_id in keys:
            row = found.get(_normalized(row_id))
            if self._is_deleted(row_id, row is not None, now):
                results[row_id] = ResultLost(
                    f"Row {row_id} of {self._table.location} (connection "
                    f"{self._table.conn_id!r}) was deleted while the task waited for "
                    "its job. The result is lost: retry or clear the task to run the "
                    "job again."
                )
            elif row is not None and row.status in (COMPLETED, FAILED):
                result_uri = self._result_uri(row_id)
                results[row_id] = Arrival(row.status, result_uri, row.completed_at)
            elif row is not None and row.is_dated:
                results[row_id] = StatusUpdate(
                    refusal=f"Row {row_id} of {self._table.location} (connection "
                    f"{self._table.conn_id!r}) has a time of completion, but the "
                    f"status {row.status[:40]!r}: only {COMPLETED!r} and {FAILED!r} "
                    "end the wait."
                )
        self._forget(results, now)
        return results

    def _is_deleted(self, row_id: str, exists: bool, now: float) -> bool:
        state = self._rows.setdefault(row_id, _RowState(now))
        state.polled_at = now
        if exists:
            state.existed, state.missing_since = True, None
            return False
        if state.missing_since is None:
            state.missing_since = now
        # A row that was found before needs no grace.
        return state.existed or (
            self._is_inserted and now - state.missing_since >= MISSING_GRACE
        )

    def _forget(self, ended: Collection[str], now: float) -> None:
        """Forget rows whose waits have ended; a source is not notified of that."""
        self._rows = {
            row_id: state
            for row_id, state in self._rows.items()
            if row_id not in ended and now - state.polled_at <= self._forget_after
        }

    async def hints(self) -> AsyncIterator[str | None]:
        """Yield the ids that PostgreSQL announces; other databases give no hints."""
        engine = await in_thread(sql_engine, self._table.conn_id)
        if engine.dialect.name != "postgresql" or engine.driver not in _PSYCOPG_DRIVERS:
            return
        try:
            psycopg: Any = importlib.import_module("psycopg")
        except ImportError:
            return
        options = {**connect_arguments(engine), "autocommit": True}
        try:
            connection = await psycopg.AsyncConnection.connect(**options)
            async with connection:
                # Quoted, as pg_notify keeps capitals: LISTEN without quotes does not.
                with abort_after(connection, TIMEOUT):
                    await connection.execute(f'LISTEN "{self._channel}"')
                yield None
                while True:
                    async for notification in connection.notifies(
                        timeout=PING_INTERVAL
                    ):
                        yield notification.payload
                    with abort_after(connection, TIMEOUT):
                        await connection.execute("SELECT 1")
        except (psycopg.Error, TimeoutError) as error:
            raise SinkUnavailable(
                f"Could not listen on channel {self._channel} (connection "
                f"{self._table.conn_id!r}): {type(error).__name__}: {error}"
            ) from error

    async def aclose(self) -> None:
        """Forget all rows; the connections belong to the process's engine."""
        self._rows.clear()


def _normalized(row_id: str) -> str:
    """Return a UUID in lower case, as some databases return capitals; else the id."""
    return row_id.lower() if _UUID.fullmatch(row_id) else row_id
