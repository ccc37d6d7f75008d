# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The sink ``sql://conn_id/table``: a row that the task code completes."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import parse_qsl, urlencode, urlsplit

from runqy_delivery import DeliveryRequest
from runqy_delivery.wire import COMPLETED, FAILED
from runqy_provider.errors import Misconfigured, NotThere, RunqyError
from runqy_provider.sinks.base import BoundSink, Sink
from runqy_provider.sinks.result import from_inline_value
from runqy_provider.sinks.sql.source import SqlSource
from runqy_provider.sinks.sql.table import SqlTable
from runqy_provider.sinks.sql.timeouts import RESULT_TIMEOUT
from runqy_provider.waiters.waiter import Waiter, WaitTarget

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Self

    from runqy_provider.models import JobRef
    from runqy_provider.settings import Settings
    from runqy_provider.sinks.result import StoredResult, UrlOpener

SCHEME = "sql"

#: An id that no delivery has: reading it shows whether the table accepts our ids.
PROBE = "00000000-0000-5000-8000-000000000000"

#: A row that was not polled for this many of the longest intervals is forgotten.
FORGET_AFTER = 6

_OPTIONS = ("id", "status", "result", "completed_at")
_CHANNEL = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")


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
        options = dict(parse_qsl(parts.query))
        names = {what: options.pop(what) for what in _OPTIONS if what in options}
        insert, notify = options.pop("insert", "true"), options.pop("notify", None)
        if options:
            raise Misconfigured(
                f"A sink sql:// has the options {', '.join(_OPTIONS)}, insert and "
                f"notify, not {', '.join(sorted(options))}."
            )
        if insert not in ("true", "false"):
            raise Misconfigured(
                f"insert of a sink must be true or false, not {insert!r}."
            )
        if not parts.netloc:
            raise Misconfigured(
                f"{uri!r} names no connection: write a sink in a table as "
                "sql://conn_id/table."
            )
        table = SqlTable(parts.netloc, parts.path.strip("/"), **names)
        return cls(table, insert == "true", notify)

    @property
    def channel(self) -> str:
        """The PostgreSQL channel that is listened to."""
        return self.notify or f"runqy_{self.table.name.replace('.', '_')}"[:63]

    @property
    def uri(self) -> str:
        options = {
            what: name
            for what, name in self.table.columns.items()
            if name != getattr(SqlTable, what)
        }
        if not self.insert:
            options["insert"] = "false"
        if self.notify is not None:
            options["notify"] = self.notify
        query = f"?{urlencode(options)}" if options else ""
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
