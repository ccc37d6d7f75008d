# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The statements for a table of results. Names are checked, values are bound."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.types import NULLTYPE

from runqy_provider.errors import Misconfigured, TooLarge
from runqy_provider.sinks.sql.engine import sql_engine
from runqy_provider.sinks.sql.errors import sql_errors
from runqy_provider.sinks.sql.timeouts import BOUND, in_transaction

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from sqlalchemy.engine import Connection

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

#: Ids in one statement: some databases take no more than a thousand.
IDS_AT_ONCE = 900

#: PostgreSQL's types json and jsonb, which its drivers read.
POSTGRES_JSON = (114, 3802)

#: How databases tell the bytes of a column, by SQLAlchemy's name of the dialect.
SIZES = {
    "postgresql": "octet_length(CAST({} AS text))",
    "mysql": "octet_length({})",
    "sqlite": "length(CAST({} AS blob))",
}

#: Status of a row whose job was just enqueued.
PENDING = "pending"


@dataclass(frozen=True)
class Row:
    """A row; the result only where it was asked for.

    Attributes:
        id: The row's id.
        status: In lower case.
        completed_at: In seconds since 1970.
        result: As the driver reads it.
        is_parsed: True where the driver has read the result as JSON.
    """

    id: str
    status: str
    completed_at: float
    result: Any = None
    is_parsed: bool = False


@dataclass(frozen=True)
class SqlTable:
    """A table of results and the names of its columns.

    Attributes:
        conn_id: The Airflow connection of its database.
        name: Its name, with its schema if need be.
        id: Column of our ``delivery_id``; a text or a UUID.
        status: Column that becomes ``completed`` or ``failed``.
        result: Column of the result; a text, JSON or bytes.
        completed_at: Column of the time of the result.
    """

    conn_id: str
    name: str
    id: str = "id"
    status: str = "status"
    result: str = "result"
    completed_at: str = "completed_at"

    def __post_init__(self) -> None:
        schema, _, name = self.name.rpartition(".")
        names = [name, self.id, self.status, self.result, self.completed_at]
        for one in names + ([schema] if schema else []):
            # Names cannot be bound as values are, so they must be nothing but names.
            if not _NAME.fullmatch(one):
                raise Misconfigured(
                    f"{one!r} is no name of a table or column: letters, digits and "
                    "underscores, as in sql://conn_id/schema.table?id=job."
                )

    @property
    def place(self) -> str:
        """The table, for messages."""
        return f"table {self.name}"

    @property
    def columns(self) -> dict[str, str]:
        """The names of the columns by their meaning."""
        return {
            "id": self.id,
            "status": self.status,
            "result": self.result,
            "completed_at": self.completed_at,
        }

    def look(self, ids: Collection[str]) -> Iterator[Row]:
        """Yield the rows of these ids, without their results."""
        wanted = list(ids)
        for start in range(0, len(wanted), IDS_AT_ONCE):
            yield from self._select(wanted[start : start + IDS_AT_ONCE], "look into")

    def status_of(self, row_id: str) -> str | None:
        """Return the status of a row; None where it is not there."""
        rows = self._select([row_id], "look into")
        return rows[0].status if rows else None

    def read(self, row_id: str, seconds: float = BOUND) -> Row | None:
        """Return a row with its result, which may take so many seconds to come."""
        rows = self._select([row_id], "read", self.result, seconds=seconds)
        return rows[0] if rows else None

    def check_size(self, row_id: str, largest: int) -> None:
        """Find out the size of a row's result before it is read.

        Raises:
            TooLarge: It has more than ``largest`` bytes, or this kind of database has
                no function here that tells.
        """
        dialect = sql_engine(self.conn_id).dialect.name
        function = SIZES.get(dialect)
        if function is None:
            raise TooLarge(f"The size of a result in {dialect} is not known.")
        rows = self._select([row_id], "look into", function.format(self.result))
        size = rows[0].result if rows else 0
        if size and size > largest:
            raise TooLarge(
                f"Row {row_id} of {self.place} has a result of {size} bytes; at most "
                f"{largest} are read here."
            )

    def insert(self, row_id: str) -> None:
        """Insert a row for a job to come, if there is none."""
        # A bare type: a database with a type for UUIDs is to see one in the text.
        statement = text(
            f"INSERT INTO {self.name} ({self.id}, {self.status}) "  # noqa: S608 - checked names
            "VALUES (:id, :status)"
        ).bindparams(
            bindparam("id", type_=NULLTYPE), bindparam("status", type_=NULLTYPE)
        )
        values = {"id": row_id, "status": PENDING}
        if self.status_of(row_id) is not None:
            return  # of an execution of the same attempt
        with sql_errors(self.place, self.conn_id, "insert into"):
            try:
                in_transaction(
                    sql_engine(self.conn_id),
                    lambda connection: connection.execute(statement, values),
                )
            except IntegrityError:
                # Another execution of the attempt may have come in between.
                if self.status_of(row_id) is None:
                    raise

    def _select(
        self, ids: Sequence[str], what: str, *more: str, seconds: float = BOUND
    ) -> list[Row]:
        columns = ", ".join((self.id, self.status, self.completed_at, *more))
        statement = text(
            f"SELECT {columns} FROM {self.name} WHERE {self.id} IN :ids"  # noqa: S608 - checked names
        ).bindparams(bindparam("ids", expanding=True, type_=NULLTYPE))

        def select(connection: Connection) -> tuple[list[Any], Sequence[Any]]:
            cursor = connection.execute(statement, {"ids": list(ids)})
            return [column[1] for column in cursor.cursor.description], cursor.all()

        with sql_errors(self.place, self.conn_id, what, seconds):
            engine = sql_engine(self.conn_id)
            types, rows = in_transaction(engine, select, seconds)
        return [
            Row(
                id=str(row[0]).strip(),
                status=str(row[1] or "").strip().lower(),
                completed_at=_seconds(row[2]),
                result=row[3] if more else None,
                is_parsed=engine.dialect.name == "postgresql"
                and types[-1] in POSTGRES_JSON,
            )
            for row in rows
        ]


def _seconds(moment: object) -> float:
    """Return seconds since 1970; databases without zones keep UTC."""
    if not isinstance(moment, datetime):
        return time.time()
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
