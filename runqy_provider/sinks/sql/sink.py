# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The sink ``sql://conn_id/table``: a row that the task code brings to its end."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import parse_qsl, urlencode, urlsplit

from runqy_delivery import DeliveryRequest
from runqy_delivery.wire import COMPLETED, FAILED
from runqy_provider.errors import Misconfigured, NotThere, RunqyError
from runqy_provider.sinks.base import Sink
from runqy_provider.sinks.result import parcel_of_value
from runqy_provider.sinks.sql.source import SqlArrivals
from runqy_provider.sinks.sql.table import SqlTable
from runqy_provider.sinks.sql.timeouts import RESULT_BOUND
from runqy_provider.waiters.source import Place
from runqy_provider.waiters.waiter import Waiter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runqy_provider.context import Access
    from runqy_provider.models import Ticket
    from runqy_provider.sinks.base import Follow
    from runqy_provider.sinks.result import Parcel

SCHEME = "sql"

#: An id that no delivery has: it shows whether the table takes ids like ours.
PROBE = "00000000-0000-5000-8000-000000000000"

#: A row that was not asked for in so many of the longest pauses is waited for no more.
FORGET_AFTER = 6

_OPTIONS = ("id", "status", "result", "completed_at")
_CHANNEL = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")


@dataclass(frozen=True)
class SqlSink(Sink):
    """Results in a table, of any database that Airflow has a SQL hook for.

    Args:
        table: The table and the names of its columns.
        insert: Insert the row before the job is enqueued, with the status ``pending``;
            task code after runqy's guide updates a row that is there.
        notify: Channel of PostgreSQL's on which ids are told; ``runqy_TABLE`` where
            not given.
    """

    needs_failure_channel: ClassVar[bool] = True

    table: SqlTable
    insert: bool = True
    notify: str | None = None

    def __post_init__(self) -> None:
        if not _CHANNEL.fullmatch(self.channel):
            raise Misconfigured(
                f"{self.channel!r} is no name of a channel: up to 63 letters, digits "
                "and underscores."
            )

    @property
    def channel(self) -> str:
        """The channel that is listened to."""
        return self.notify or f"runqy_{self.table.name.replace('.', '_')}"[:63]

    @property
    def uri(self) -> str:
        """The sink as a text."""
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

    def check(self, access: Access) -> None:  # noqa: ARG002 - the table has its own connection
        """Ask whether table and columns are there, and take ids like ours."""
        self.table.read(PROBE)

    def request(
        self,
        access: Access,  # noqa: ARG002 - nothing of it is needed
        delivery_id: str,
        expires: float,  # noqa: ARG002 - nothing expires
    ) -> DeliveryRequest:
        """Ask for an UPDATE of our row."""
        return DeliveryRequest(
            delivery_id,
            sink="sql",
            url=self._where(delivery_id),
            table={
                "name": self.table.name,
                **self.table.columns,
                "notify": self.channel,
            },
        )

    def prepare(self, access: Access, delivery_id: str) -> None:  # noqa: ARG002 - the table has its own connection
        """Insert the row, if that is wanted."""
        if self.insert:
            self.table.insert(delivery_id)

    def where(self, access: Access, delivery_id: str) -> str:  # noqa: ARG002 - the table has its own connection
        """Return the row's address."""
        return self._where(delivery_id)

    def owns(self, where: str) -> bool:
        """True for our rows."""
        return where.startswith(f"{self.uri}#")

    def places(self, access: Access, ticket: Ticket) -> Sequence[Place]:
        """Return the table."""
        # Whoever enqueued a job has inserted its row before. A sensor that knows no
        # job may be early: nothing was inserted yet.
        is_inserted = self.insert and ticket.job_id is not None

        def make() -> Waiter:
            source = SqlArrivals(
                self.table,
                self.channel,
                self._where,
                is_inserted=is_inserted,
                forget_after=FORGET_AFTER * max(1.0, access.longest_poll),
            )
            return Waiter(source, access.poll, access.longest_poll)

        return [Place(("sql", self, is_inserted), make, ticket.delivery_id)]

    def open(self, access: Access, where: str, follow: Follow | None = None) -> Parcel:
        """Read the row."""
        row_id = urlsplit(where).fragment
        if access.largest_read is not None:
            self.table.check_size(row_id, access.largest_read)
        row = self.table.read(row_id, RESULT_BOUND)
        if row is None or row.status not in (COMPLETED, FAILED):
            state = "is not there" if row is None else f"has the status {row.status!r}"
            raise NotThere(
                f"Row {row_id} of {self.table.place} (connection "
                f"{self.table.conn_id!r}) {state}: it has no result."
            )
        return parcel_of_value(
            row.result,
            where,
            row.completed_at,
            delivery_id=row_id,
            follow=follow or functools.partial(self.follow, access),
            failed=row.status == FAILED,
            is_parsed=row.is_parsed,
        )

    def nothing_arrived(self, access: Access, ticket: Ticket) -> str:  # noqa: ARG002 - the table has its own connection
        """Say which row did not come to its end."""
        try:
            status = self.table.status_of(ticket.delivery_id)
        except RunqyError as error:
            state = f"could not be read just now ({error})"
        else:
            state = "is not there" if status is None else f"has the status {status!r}"
        return (
            f"Row {ticket.delivery_id} of {self.table.place} (connection "
            f"{self.table.conn_id!r}) {state}. Check that the task code writes to that "
            "database, and its log."
        )

    def _where(self, delivery_id: str) -> str:
        return f"{self.uri}#{delivery_id}"


def sql_sink(uri: str) -> SqlSink:
    """Return the sink that a URI, or the address of a result in it, means.

    Raises:
        Misconfigured: An option is unknown, or the names make no sense.
    """
    parts = urlsplit(uri)
    options = dict(parse_qsl(parts.query))
    names = {what: options.pop(what) for what in _OPTIONS if what in options}
    insert, notify = options.pop("insert", "true"), options.pop("notify", None)
    if options:
        raise Misconfigured(
            f"A sink in a table knows the options {', '.join(_OPTIONS)}, insert and "
            f"notify, not {', '.join(sorted(options))}."
        )
    if insert not in ("true", "false"):
        raise Misconfigured(f"insert of a sink is true or false, not {insert!r}.")
    if not parts.netloc:
        raise Misconfigured(
            f"{uri!r} names no connection: a sink in a table is written "
            "sql://conn_id/table."
        )
    table = SqlTable(parts.netloc, parts.path.strip("/"), **names)
    return SqlSink(table, insert == "true", notify)
