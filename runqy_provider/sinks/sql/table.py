# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The statements for a table of results. Names are checked, and values are bound."""

from __future__ import annotations

import re
import time
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, text
from sqlalchemy.exc import (
    DataError,
    DBAPIError,
    IntegrityError,
    InterfaceError,
    OperationalError,
    SQLAlchemyError,
)
from sqlalchemy.types import NULLTYPE

from runqy_provider.errors import (
    Misconfigured,
    NoAccess,
    NotThere,
    SinkError,
    SinkUnavailable,
    TooLarge,
)
from runqy_provider.sinks.sql.engine import sql_engine
from runqy_provider.sinks.sql.timeouts import TIMEOUT, in_transaction

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from sqlalchemy.engine import Connection


_LOCK_TIMEOUT_CODE = "55P03"

#: A prepared statement does not exist, or exists already: a pooler has switched to
#: another server connection. The next poll gets another one.
_POOLER_CODES = frozenset({"26000", "42P05"})

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

#: The most ids in one statement: some databases accept a thousand at most.
MAX_IDS = 900

#: Ids of PostgreSQL's types json and jsonb, which its drivers parse.
POSTGRES_JSON = (114, 3802)

#: The size of a column in bytes, as an expression, by SQLAlchemy's name of the dialect.
SIZE_EXPRESSIONS = {
    "postgresql": "octet_length(CAST({} AS text))",
    "mysql": "octet_length({})",
    "sqlite": "length(CAST({} AS blob))",
}

#: Status of a row whose job has been or will be enqueued.
PENDING = "pending"

#: The meanings of the columns.
COLUMNS = ("id", "status", "result", "completed_at")


@dataclass(frozen=True)
class _ErrorKind:
    """Errors of databases with one meaning, recognised by code or by message.

    Attributes:
        codes: Codes of the SQL standard (SQLSTATE), and PostgreSQL's own.
        texts: Parts of messages in lower case, for drivers that report no code.
    """

    codes: frozenset[str]
    texts: tuple[str, ...] = ()

    def matches(self, code: str, message: str) -> bool:
        return code in self.codes or any(text in message for text in self.texts)


_DENIED = _ErrorKind(
    frozenset({"28000", "28P01", "42501"}),
    ("authentication failed", "access denied", "command denied", "permission denied"),
)
_MISSING = _ErrorKind(
    frozenset({"42P01", "42703", "42S02", "42S22", "3D000", "3F000"}),
    (
        "no such table",
        "no such column",
        "doesn't exist",
        "unknown column",
        "unknown database",
    ),
)
_WRONG_TYPE = _ErrorKind(frozenset({"22P02", "42883", "42804"}))

_TIMED_OUT = _ErrorKind(
    frozenset({"57014", _LOCK_TIMEOUT_CODE}),
    ("timeout expired", "timed out", "database is locked"),
)


@contextmanager
def sql_errors(
    location: str, conn_id: str, operation: str, seconds: float = TIMEOUT
) -> Iterator[None]:
    """Turn errors of SQLAlchemy into ours.

    Args:
        location: The table, for the message: ``"table results"``.
        conn_id: The Airflow connection in use.
        operation: What was attempted, for the message: ``"read"``.
        seconds: How long a statement may take.

    Raises:
        NoAccess: The database refused access.
        NotThere: The table, or one of its columns, does not exist.
        Misconfigured: The column of the id has a type that cannot hold our ids.
        SinkUnavailable: The database did not answer, or broke the connection.
        SinkError: Any other error.
    """
    try:
        yield
    except DBAPIError as error:
        raise _translate(error, location, conn_id, operation, seconds) from error
    except SQLAlchemyError as error:
        raise SinkUnavailable(f"Could not {operation} {location}: {error}") from error
    except TimeoutError as error:
        raise SinkUnavailable(
            f"Could not {operation} {location} (connection {conn_id!r}): {error}."
        ) from error


def _translate(
    error: DBAPIError, location: str, conn_id: str, operation: str, seconds: float
) -> SinkError | Misconfigured:
    """Return our error for an error of the database."""
    # The driver's error: SQLAlchemy's message repeats the statement.
    message = f"{type(error.orig).__name__}: {error.orig}".strip()
    code, text = _code(error.orig), message.lower()
    failed = f"Could not {operation} {location}"
    if _DENIED.matches(code, text):
        return NoAccess(
            f"{failed}: {message}. Check login, password and permissions of "
            f"connection {conn_id!r}."
        )
    if _MISSING.matches(code, text):
        return NotThere(
            f"{failed}: {message}. Create it as in docs/how-to/sinks/sql.md, or name "
            "table and columns in the sink: sql://conn_id/table?id=job&result=out."
        )
    if _WRONG_TYPE.matches(code, text) or isinstance(error, DataError):
        return Misconfigured(
            f"{failed}: {message}. The id of a row is a delivery_id: its column must "
            "be a text or a UUID."
        )
    failed += f" (connection {conn_id!r})"
    if _TIMED_OUT.matches(code, text):
        # No statement waits longer for a lock than a poll may take.
        limit = TIMEOUT if code == _LOCK_TIMEOUT_CODE else seconds
        return SinkUnavailable(
            f"{failed}: it did not answer within {limit:.0f} s ({message}). Check "
            "whether another session holds a lock on it, as a migration does."
        )
    if _may_pass(error, code):
        return SinkUnavailable(f"{failed}: {message}")
    return SinkError(f"{failed}: {message}")


def _may_pass(error: DBAPIError, code: str) -> bool:
    """Return whether a later attempt may succeed."""
    return (
        code in _POOLER_CODES
        or error.connection_invalidated
        or isinstance(error, (OperationalError, InterfaceError))
    )


def _code(error: BaseException | None) -> str:
    """Return the SQLSTATE of a driver's error, or ""; psycopg2 calls it pgcode."""
    for name in ("sqlstate", "pgcode"):
        code = getattr(error, name, None)
        if code:
            return str(code)
    return ""


@dataclass(frozen=True)
class Row:
    """A row of a table of results.

    Attributes:
        id: Id of the row.
        status: Status in lower case.
        completed_at: Time of the result, in seconds since 1970.
        result: The result as the driver returns it, or its size in bytes; None if
            neither was selected.
        is_parsed: Whether the driver has parsed the result as JSON.
        is_dated: Whether it has a time of the result.
    """

    id: str
    status: str
    completed_at: float
    result: Any = None
    is_parsed: bool = False
    is_dated: bool = False


@dataclass(frozen=True)
class SqlTable:
    """A table of results and the names of its columns.

    Attributes:
        conn_id: The Airflow connection of its database.
        name: Name of the table, with its schema if needed.
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
        names = [name, *self.columns.values()]
        for one in names + ([schema] if schema else []):
            # Names cannot be bound as values are, so they must not contain SQL.
            if not _NAME.fullmatch(one):
                raise Misconfigured(
                    f"{one!r} is not a valid name of a table or column: use letters, "
                    "digits and underscores, as in sql://conn_id/schema.table?id=job."
                )

    @property
    def location(self) -> str:
        """The table, for messages."""
        return f"table {self.name}"

    @property
    def columns(self) -> dict[str, str]:
        """The names of the columns by their meaning."""
        return {meaning: getattr(self, meaning) for meaning in COLUMNS}

    def poll(self, ids: Collection[str]) -> Iterator[Row]:
        """Yield the rows of these ids, without their results."""
        wanted = list(ids)
        for start in range(0, len(wanted), MAX_IDS):
            yield from self._select(wanted[start : start + MAX_IDS], "query")

    def status_of(self, row_id: str) -> str | None:
        """Return the status of a row; None if it does not exist."""
        rows = self._select([row_id], "query")
        return rows[0].status if rows else None

    def read(self, row_id: str, seconds: float = TIMEOUT) -> Row | None:
        """Return a row with its result; None if it does not exist.

        Args:
            row_id: Id of the row.
            seconds: How long reading may take.
        """
        rows = self._select([row_id], "read", self.result, seconds=seconds)
        return rows[0] if rows else None

    def check_size(self, row_id: str, max_bytes: int) -> None:
        """Check the size of a row's result before it is read.

        Raises:
            TooLarge: The result has more than ``max_bytes`` bytes, or its size cannot
                be determined in this kind of database.
        """
        dialect = sql_engine(self.conn_id).dialect.name
        expression = SIZE_EXPRESSIONS.get(dialect)
        if expression is None:
            raise TooLarge(
                f"The result was not read: its size cannot be determined in {dialect}."
            )
        rows = self._select([row_id], "query", expression.format(self.result))
        size = rows[0].result if rows else 0
        if size and size > max_bytes:
            raise TooLarge(
                f"Row {row_id} of {self.location} has a result of {size} bytes; at "
                f"most {max_bytes} are read here."
            )

    def insert(self, row_id: str) -> None:
        """Insert a row for a job that will be enqueued, unless the row exists."""
        # Bound without a type: a database with a type for UUIDs converts the text
        # itself.
        statement = text(
            f"INSERT INTO {self.name} ({self.id}, {self.status}) "  # noqa: S608 - checked names
            "VALUES (:id, :status)"
        ).bindparams(
            bindparam("id", type_=NULLTYPE), bindparam("status", type_=NULLTYPE)
        )
        values = {"id": row_id, "status": PENDING}
        if self.status_of(row_id) is not None:
            return  # inserted by another execution of this attempt
        with sql_errors(self.location, self.conn_id, "insert into"):
            try:
                in_transaction(
                    sql_engine(self.conn_id),
                    lambda connection: connection.execute(statement, values),
                )
            except IntegrityError:
                # Another execution of this attempt may have inserted it meanwhile.
                if self.status_of(row_id) is None:
                    raise

    def _select(
        self, ids: Sequence[str], operation: str, *more: str, seconds: float = TIMEOUT
    ) -> list[Row]:
        """Return the rows of these ids.

        Args:
            ids: Ids of the rows; at most ``MAX_IDS``.
            operation: What is attempted, for messages.
            more: The column of the result, or an expression for its size.
            seconds: How long the statement may take.
        """
        columns = ", ".join((self.id, self.status, self.completed_at, *more))
        statement = text(
            f"SELECT {columns} FROM {self.name} WHERE {self.id} IN :ids"  # noqa: S608 - checked names
        ).bindparams(bindparam("ids", expanding=True, type_=NULLTYPE))

        def select(connection: Connection) -> tuple[list[Any], Sequence[Any]]:
            cursor = connection.execute(statement, {"ids": list(ids)})
            return [column[1] for column in cursor.cursor.description], cursor.all()

        with sql_errors(self.location, self.conn_id, operation, seconds):
            engine = sql_engine(self.conn_id)
            types, rows = in_transaction(engine, select, seconds)
        return [
            Row(
                id=str(row[0]).strip(),
                status=str(row[1] or "").strip().lower(),
                completed_at=_timestamp(row[2]),
                result=row[3] if more else None,
                is_parsed=engine.dialect.name == "postgresql"
                and types[-1] in POSTGRES_JSON,
                is_dated=row[2] is not None,
            )
            for row in rows
        ]


def _timestamp(moment: object) -> float:
    """Return a time in seconds since 1970; one without a time zone is UTC."""
    if not isinstance(moment, datetime):
        return time.time()
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    return moment.timestamp()
