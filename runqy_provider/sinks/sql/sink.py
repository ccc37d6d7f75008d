# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The sink ``sql://conn_id/table``: a row that the task code completes."""

from __future__ import annotations

import importlib
import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit

from runqy_delivery import DeliveryRequest
from runqy_delivery.wire import COMPLETED, FAILED
from runqy_provider.airflow_compat import in_thread
from runqy_provider.errors import (
    Misconfigured,
    NotThere,
    ResultLost,
    RunqyError,
    SinkUnavailable,
)
from runqy_provider.sinks.base import BoundSink, Sink
from runqy_provider.sinks.options import options_of, query_of
from runqy_provider.sinks.result import from_inline_value
from runqy_provider.sinks.sql.engine import connect_arguments, sql_engine
from runqy_provider.sinks.sql.table import COLUMNS, SqlTable
from runqy_provider.sinks.sql.timeouts import RESULT_TIMEOUT, TIMEOUT, abort_after
from runqy_provider.waiters.source import Arrival, PollResult, StatusUpdate
from runqy_provider.waiters.waiter import Waiter, WaitTarget

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence

    from typing_extensions import Self

    from runqy_provider.models import JobRef
    from runqy_provider.settings import Settings
    from runqy_provider.sinks.result import StoredResult, UrlOpener

#: Seconds without a notification after which the connection is tested.
PING_INTERVAL = 30.0

#: Seconds for which an inserted row must be missing before it counts as deleted. A
#: single poll, as for the job of a previous attempt, therefore never reports a
#: deletion.
MISSING_GRACE = 3.0

#: Drivers whose connection arguments psycopg accepts, too.
_PSYCOPG_DRIVERS = ("psycopg", "psycopg2")

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)

SCHEME = "sql"

#: An id that no delivery has: reading it shows whether the table accepts our ids.
PROBE = "00000000-0000-5000-8000-000000000000"

#: A row that was not polled for this many of the longest intervals is forgotten.
FORGET_AFTER = 6

#: The options of its URIs, and their defaults.
_DEFAULTS = {
    **{name: getattr(SqlTable, name) for name in COLUMNS},
    "insert": True,
    "notify": None,
}

_CHANNEL = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")


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


@dataclass(frozen=True)
class SqlSink(Sink):
    """Results in a table of any database that Airflow has a SQL hook for.

    Args:
        table: The table and the names of its columns.
        insert: Insert the row before the job is enqueued, with the status ``pending``;
            task code that follows runqy's guide updates an existing row.
        notify: PostgreSQL channel that announces ids; by default ``runqy_TABLE``.
    """

    needs_failure_channel: ClassVar[bool] = True
    notification_field: ClassVar[str | None] = "table"

    table: SqlTable
    insert: bool = True
    notify: str | None = None

    def __post_init__(self) -> None:
        if not _CHANNEL.fullmatch(self.channel):
            raise Misconfigured(
                f"{self.channel!r} is not a valid name of a channel: use up to 63 "
                "letters, digits and underscores, as in ?notify=runqy_results."
            )

    @classmethod
    def from_uri(cls, uri: str) -> Self:
        """Return the sink that ``sql://conn_id/table?option=value`` describes.

        Raises:
            Misconfigured: An option is unknown, or a name is not valid.
        """
        parts = urlsplit(uri)
        options = options_of(uri, _DEFAULTS)
        own = {n: options.pop(n) for n in ("insert", "notify") if n in options}
        if not parts.netloc:
            raise Misconfigured(
                f"{uri!r} names no connection: write a sink in a table as "
                "sql://conn_id/table."
            )
        return cls(SqlTable(parts.netloc, parts.path.strip("/"), **options), **own)

    @property
    def channel(self) -> str:
        """The PostgreSQL channel that is listened to."""
        return self.notify or f"runqy_{self.table.name.replace('.', '_')}"[:63]

    @property
    def uri(self) -> str:
        own = {"insert": self.insert, "notify": self.notify}
        query = query_of({**self.table.columns, **own}, _DEFAULTS)
        return f"{SCHEME}://{self.table.conn_id}/{self.table.name}{query}"

    def bind(self, settings: Settings) -> BoundSqlSink:
        return BoundSqlSink(self, settings)


@dataclass(frozen=True, slots=True)
class _WaiterFactory:
    sink: SqlSink
    is_inserted: bool
    bound: BoundSqlSink = field(compare=False)

    def __call__(self) -> Waiter:
        config = self.bound.settings.config
        source = SqlSource(
            self.sink.table,
            self.sink.channel,
            self.bound.result_uri,
            is_inserted=self.is_inserted,
            forget_after=FORGET_AFTER * max(1.0, config.longest_poll_seconds),
        )
        return Waiter(source, config.poll_seconds, config.longest_poll_seconds)


class BoundSqlSink(BoundSink):
    """One table; its database has a connection of its own."""

    sink: SqlSink

    def check(self) -> None:
        """Check that table and columns exist, and accept our ids."""
        self.sink.table.read(PROBE)

    def request(self, delivery_id: str, expires: float) -> DeliveryRequest:  # noqa: ARG002 - a row does not expire
        """Request an UPDATE of our row."""
        table = self.sink.table
        return DeliveryRequest(
            delivery_id,
            sink=SCHEME,
            url=self.result_uri(delivery_id),
            table={"name": table.name, **table.columns, "notify": self.sink.channel},
        )

    def prepare(self, delivery_id: str) -> None:
        """Insert the row, if the sink's ``insert`` is true."""
        if self.sink.insert:
            self.sink.table.insert(delivery_id)

    def result_uri(self, delivery_id: str) -> str:
        """Return the URI of the row."""
        return f"{self.sink.uri}#{delivery_id}"

    def owns(self, uri: str) -> bool:
        """Return whether a result is a row of this table."""
        return uri.startswith(f"{self.sink.uri}#")

    def targets(self, job: JobRef) -> Sequence[WaitTarget]:
        # The row of a job that was enqueued has been inserted. A sensor that does not
        # know the job may be early.
        is_inserted = self.sink.insert and job.job_id is not None
        factory = _WaiterFactory(self.sink, is_inserted, self)
        return [WaitTarget(factory, job.delivery_id)]

    def open(self, uri: str, open_url: UrlOpener | None = None) -> StoredResult:
        table, row_id = self.sink.table, urlsplit(uri).fragment
        if self.settings.max_read_bytes is not None:
            table.check_size(row_id, self.settings.max_read_bytes)
        row = table.read(row_id, RESULT_TIMEOUT)
        if row is None or row.status not in (COMPLETED, FAILED):
            state = (
                "does not exist" if row is None else f"has the status {row.status!r}"
            )
            raise NotThere(
                f"Row {row_id} of {table.location} (connection {table.conn_id!r}) "
                f"{state}: it has no result."
            )
        return from_inline_value(
            row.result,
            uri,
            row.completed_at,
            delivery_id=row_id,
            open_url=open_url or self.open_url,
            failed=row.status == FAILED,
            is_parsed=row.is_parsed,
        )

    def describe_timeout(self, job: JobRef) -> str:
        """Say which row was not completed."""
        table = self.sink.table
        try:
            status = table.status_of(job.delivery_id)
        except RunqyError as error:
            state = f"could not be read ({error})"
        else:
            state = "does not exist" if status is None else f"has the status {status!r}"
        return (
            f"Row {job.delivery_id} of {table.location} (connection "
            f"{table.conn_id!r}) {state}; only {COMPLETED!r} and {FAILED!r} end the "
            "wait. Check that the task code writes to that database, and its log."
        )
