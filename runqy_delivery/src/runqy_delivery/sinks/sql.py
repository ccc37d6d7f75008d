# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Deliver to an SQL table: write status and result to the row of the delivery.

The URL of the database holds a password, so it comes from the worker's environment (a
runqy vault) and never from the payload.
"""

from __future__ import annotations

import logging
import re
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

from runqy_delivery._dsn import dsn_from_environment
from runqy_delivery._retry import retry_call
from runqy_delivery.errors import (
    DeliveryImpossible,
    ResultRefused,
)
from runqy_delivery.sinks.sql_drivers import URL_VARIABLE, driver_of
from runqy_delivery.wire import COMPLETED, FAILED

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["URL_VARIABLE", "write"]

log = logging.getLogger("runqy_delivery")

#: A table or column name, the table's with an optional schema.
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)?")

#: SQLite's message for a table or column that does not exist.
_NO_SUCH = re.compile(r"no such (table|column)|has no column named")

#: MySQL's error number for a column that does not exist.
_UNKNOWN_COLUMN = 1054

#: MySQL's error number for a statement that is larger than ``max_allowed_packet``.
_TOO_LARGE = 1153

#: MySQL's error numbers for a bad value that its drivers report as operational errors:
#: the last are not JSON, and a violated constraint in MySQL and in MariaDB.
_MYSQL_VALUE_ERRORS = (_TOO_LARGE, 3140, 3819, 4025)

#: Bytes of a statement without the result, at most.
_REST_OF_STATEMENT = 2048

#: Characters that MySQL's drivers escape.
_ESCAPED = "\"'\\\0\n\r\x1a"

#: Classes of SQLSTATE that PostgreSQL uses for a bad value: data exceptions, and
#: exceeded limits of a type, a row or an index.
_VALUE_ERRORS = ("22", "54")


def write(
    table: Mapping[str, Any], delivery_id: str, status: str, result: bytes
) -> None:
    """Write a final status and its result to a row; the first final status is kept.

    A missing row is inserted.

    Args:
        table: From the delivery request: ``name``, the names of the columns ``id``,
            ``status``, ``result`` and ``completed_at``, and optionally ``notify``, a
            PostgreSQL channel to notify.
        delivery_id: Id of the delivery, which is the id of the row.
        status: ``completed`` or ``failed``.
        result: The value of the column ``result``, as JSON in UTF-8.

    Raises:
        ResultRefused: A column does not accept its value.
        DeliveryImpossible: The URL, the driver or the table is missing or not valid.
        DeliveryUndeliverable: The database could not be reached within the retry
            budget.
    """
    names = _checked_names(table)
    sink = f"the table {names['name']}"
    dsn = dsn_from_environment(URL_VARIABLE, sink, "database")
    driver, connect = driver_of(dsn)

    def write_once() -> None:
        with closing(connect()) as connection:
            row = _Row(connection, driver, names, delivery_id)
            try:
                row.finish(status, result.decode())
            except driver.Error:
                # The error's traceback keeps the cursor, and with it SQLite's lock,
                # longer than the connection; the next statement needs that lock.
                with suppress(driver.Error):
                    connection.rollback()
                raise

    operation = f"Writing to table {names['name']} at {dsn}"
    retryable = (driver.OperationalError, driver.InterfaceError)
    try:
        retry_call(operation, write_once, retryable, is_permanent=_is_permanent)
    except driver.Error as error:
        message = f"{type(error).__name__}: {error}"
        if _is_value_error(error, driver):
            raise _rejected_value(names, len(result), message) from error
        raise DeliveryImpossible(f"{operation} failed: {message}") from error


def _rejected_value(names: Mapping[str, str], size: int, message: str) -> ResultRefused:
    """Return the error for a row that the table does not accept.

    Args:
        names: The names of the table and its columns.
        size: Size of the value in the column ``result``, in bytes.
        message: The database's error message.
    """
    return ResultRefused(
        f"Table {names['name']} does not accept a row with {size:,} bytes in column "
        f"{names['result']}: {message}. Check the types and constraints of its "
        "columns, or use an object store as the sink of this task "
        "(sink='s3://bucket/prefix')."
    )


def _is_permanent(error: Exception) -> bool:
    """True for an error that drivers report as operational, but that occurs again."""
    return (
        _NO_SUCH.search(str(error)) is not None
        or error.args[:1] == (_UNKNOWN_COLUMN,)
        or _is_about_values(error)
    )


def _is_value_error(error: Exception, driver: Any) -> bool:
    """True if the values of the row caused the error."""
    is_value_class = isinstance(error, (driver.DataError, driver.IntegrityError))
    return is_value_class or _is_about_values(error)


def _is_about_values(error: Exception) -> bool:
    code = error.args[0] if error.args else None
    return code in _MYSQL_VALUE_ERRORS or _sqlstate(error).startswith(_VALUE_ERRORS)


def _sqlstate(error: Exception) -> str:
    """Return the SQLSTATE of an error; empty if the driver does not provide it."""
    code = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    return str(code or "")


class _Row:
    """The row of one delivery, on a DB-API connection."""

    def __init__(
        self,
        connection: Any,
        driver: Any,
        names: Mapping[str, str],
        delivery_id: str,
    ) -> None:
        self._connection = connection
        self._driver = driver
        self._names = names
        self._id = delivery_id

    def finish(self, status: str, result: str) -> None:
        """Write a final status and commit; an existing final status is kept."""
        names = self._names
        if self._driver.__name__ in ("pymysql", "MySQLdb"):
            self._check_packet(result)
        changed = self._execute(
            "UPDATE {name} SET {status} = ?, {result} = ?, "
            "{completed_at} = CURRENT_TIMESTAMP "
            "WHERE {id} = ? AND ({status} IS NULL OR {status} NOT IN (?, ?))",
            [status, result, self._id, COMPLETED, FAILED],
        ).rowcount
        if not changed and not self._insert(status, result):
            log.warning(
                "Row %s of table %s already has a final status, which is kept.",
                self._id,
                names["name"],
            )
        if "notify" in names and self._driver.__name__.startswith("psycopg"):
            self._execute("SELECT pg_notify(?, ?)", [names["notify"], self._id])
        self._connection.commit()

    def _check_packet(self, result: str) -> None:
        """Refuse what MySQL would answer with a broken connection.

        Raises:
            OperationalError: The result is larger than MySQL's ``max_allowed_packet``.
        """
        [limit] = self._execute("SELECT @@max_allowed_packet", []).fetchone()
        size = len(result.encode()) + sum(map(result.count, _ESCAPED))
        if size > limit - _REST_OF_STATEMENT:
            raise self._driver.OperationalError(
                _TOO_LARGE,
                f"the statement would be larger than max_allowed_packet, {limit:,} "
                "bytes; raise it in MySQL's settings",
            )

    def _insert(self, status: str, result: str) -> bool:
        """Insert the row; return False if it exists already."""
        if self._exists():
            return False
        try:
            self._execute(
                "INSERT INTO {name} ({id}, {status}, {result}, {completed_at}) "
                "VALUES (?, ?, ?, CURRENT_TIMESTAMP)",
                [self._id, status, result],
            )
        except self._driver.IntegrityError:
            self._connection.rollback()
            if not self._exists():
                raise  # the values violate a constraint of the table
            # Another connection inserted the row meanwhile; the next try updates it.
            raise self._driver.OperationalError(
                f"row {self._id} was inserted by another connection meanwhile"
            ) from None
        return True

    def _exists(self) -> bool:
        cursor = self._execute("SELECT {status} FROM {name} WHERE {id} = ?", [self._id])
        return cursor.fetchone() is not None

    def _execute(self, statement: str, values: Sequence[str]) -> Any:
        """Execute a statement with ``?`` for values and ``{...}`` for names."""
        parts = statement.format(**self._names).split("?")
        style = self._driver.paramstyle
        marks = [_placeholder(style, number) for number in range(1, len(parts))]
        text = parts[0] + "".join(mark + part for mark, part in zip(marks, parts[1:]))
        cursor = self._connection.cursor()
        if style == "named":
            cursor.execute(text, {f"p{n}": v for n, v in enumerate(values, 1)})
        else:
            cursor.execute(text, tuple(values))
        return cursor


def _placeholder(style: str, number: int) -> str:
    """Return the placeholder of a value in a DB-API ``paramstyle``."""
    if style == "qmark":
        return "?"
    if style == "numeric":
        return f":{number}"
    return f":p{number}" if style == "named" else "%s"


def _checked_names(table: Mapping[str, Any]) -> dict[str, str]:
    """Return the names in the request, which become part of SQL statements.

    Raises:
        DeliveryImpossible: One of them is not a valid SQL name.
    """
    names = {field: table.get(field) for field in ("name", "id", "status", "result")}
    names["completed_at"] = table.get("completed_at")
    if table.get("notify") is not None:
        names["notify"] = table["notify"]
    for field, name in names.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise DeliveryImpossible(
                f"{name!r} is not a valid SQL name ({field} of the table in the "
                "delivery request). Use letters, digits and underscores."
            )
    return {field: str(name) for field, name in names.items()}
