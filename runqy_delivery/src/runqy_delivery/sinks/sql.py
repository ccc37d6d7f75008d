# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Deliver into a table: its row is brought to the end.

The address of the database is a secret, so it comes from the worker's environment (a
runqy vault) and never from the payload.
"""

from __future__ import annotations

import logging
import os
import re
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

from runqy_delivery._dsn import read_address
from runqy_delivery._retry import persist
from runqy_delivery.errors import (
    DeliveryImpossible,
    ResultRefused,
)
from runqy_delivery.sinks.sql_drivers import URL_VARIABLE, driver_of
from runqy_delivery.wire import COMPLETED, FAILED

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

log = logging.getLogger("runqy_delivery")

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)?")

#: How SQLite says that a table or a column is not there.
_NOT_THERE = re.compile(r"no such (table|column)|has no column named")

#: MySQL's number for a column that is not there.
_UNKNOWN_COLUMN = 1054

#: PostgreSQL's classes of errors that are the value's: data exceptions, and more than
#: a type or a row holds.
_VALUES_OWN = ("22", "54")


def write(
    table: Mapping[str, Any], delivery_id: str, status: str, result: bytes
) -> None:
    """Set a job's row to its end; the first final status stays.

    A row that is not there is inserted.

    Args:
        table: From the delivery request: ``name``, and the names of the columns
            ``id``, ``status``, ``result``, ``completed_at``; ``notify``, a channel of
            PostgreSQL's that is told.
        delivery_id: Id of the row.
        status: ``completed`` or ``failed``.
        result: What goes to the column ``result``; JSON in UTF-8.

    Raises:
        ResultRefused: A column does not take its value.
        DeliveryImpossible: No address, driver or such table is there.
        DeliveryUndeliverable: The database is away.
    """
    names = _names(table)
    url = os.environ.get(URL_VARIABLE)
    if not url:
        raise DeliveryImpossible(
            f"The result goes to the table {names['name']}, but {URL_VARIABLE} is not "
            "set: put the database's URL into a vault of this queue."
        )
    address = read_address(url, URL_VARIABLE)
    module, connect = driver_of(address)
    what = f"Writing to table {names['name']} at {address}"

    def attempt() -> None:
        with closing(connect()) as connection:
            row = _Row(connection, module, names, delivery_id)
            try:
                row.finish(status, result.decode())
            except module.Error:
                # SQLite's lock would outlive the connection, as the error has a
                # traceback that holds the cursor; the next word needs that lock.
                with suppress(module.Error):
                    connection.rollback()
                raise

    transient = (module.OperationalError, module.InterfaceError)
    try:
        persist(what, attempt, transient, lasting=_lasts)
    except module.Error as error:
        words = f"{type(error).__name__}: {error}"
        values_own = (module.DataError, module.IntegrityError)
        if isinstance(error, values_own) or _state(error).startswith(_VALUES_OWN):
            raise ResultRefused(
                f"Table {names['name']} takes no row with {len(result):,} bytes in "
                f"column {names['result']}: {words}. Check the types and rules of its "
                "columns, or use an object store as the sink of this task "
                "(sink='s3://bucket/prefix')."
            ) from error
        raise DeliveryImpossible(f"{what} did not work: {words}") from error


def _lasts(error: Exception) -> bool:
    """True for what a database calls operational, though it will say so again."""
    return (
        _NOT_THERE.search(str(error)) is not None
        or error.args[:1] == (_UNKNOWN_COLUMN,)
        or _state(error).startswith(_VALUES_OWN)
    )


def _state(error: Exception) -> str:
    """Return the error's code in SQL; empty where the driver does not tell."""
    code = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    return str(code or "")


class _Row:
    """The row of one delivery, over a connection of Python's database API."""

    def __init__(
        self,
        connection: Any,
        module: Any,
        names: Mapping[str, str],
        delivery_id: str,
    ) -> None:
        self._connection = connection
        self._module = module
        self._names = names
        self._id = delivery_id

    def finish(self, status: str, result: str) -> None:
        names = self._names
        changed = self._run(
            "UPDATE {name} SET {status} = ?, {result} = ?, "
            "{completed_at} = CURRENT_TIMESTAMP "
            "WHERE {id} = ? AND ({status} IS NULL OR {status} NOT IN (?, ?))",
            [status, result, self._id, COMPLETED, FAILED],
        ).rowcount
        if not changed and not self._insert(status, result):
            log.warning(
                "Row %s of %s has a final status already: it stays.",
                self._id,
                names["name"],
            )
        if "notify" in names and self._module.__name__.startswith("psycopg"):
            self._run("SELECT pg_notify(?, ?)", [names["notify"], self._id])
        self._connection.commit()

    def _insert(self, status: str, result: str) -> bool:
        if self._is_there():
            return False
        try:
            self._run(
                "INSERT INTO {name} ({id}, {status}, {result}, {completed_at}) "
                "VALUES (?, ?, ?, CURRENT_TIMESTAMP)",
                [self._id, status, result],
            )
        except self._module.IntegrityError:
            self._connection.rollback()
            if not self._is_there():
                raise  # the table has a rule that these values break
            # Somebody else's row came in between; the next try finds what it says.
            raise self._module.OperationalError(
                f"row {self._id} appeared meanwhile"
            ) from None
        return True

    def _is_there(self) -> bool:
        found = self._run("SELECT {status} FROM {name} WHERE {id} = ?", [self._id])
        return found.fetchone() is not None

    def _run(self, statement: str, values: Sequence[str]) -> Any:
        parts = statement.format(**self._names).split("?")
        style = self._module.paramstyle
        marks = [_mark(style, number) for number in range(1, len(parts))]
        text = parts[0] + "".join(mark + part for mark, part in zip(marks, parts[1:]))
        cursor = self._connection.cursor()
        if style == "named":
            cursor.execute(text, {f"p{n}": v for n, v in enumerate(values, 1)})
        else:
            cursor.execute(text, tuple(values))
        return cursor


def _mark(style: str, number: int) -> str:
    if style == "qmark":
        return "?"
    if style == "numeric":
        return f":{number}"
    return f":p{number}" if style == "named" else "%s"


def _names(table: Mapping[str, Any]) -> dict[str, str]:
    """Return the names in the request; they become SQL, so they must be names.

    Raises:
        DeliveryImpossible: One of them is not a name.
    """
    wanted = {name: table.get(name) for name in ("name", "id", "status", "result")}
    wanted["completed_at"] = table.get("completed_at")
    if table.get("notify") is not None:
        wanted["notify"] = table["notify"]
    for what, name in wanted.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise DeliveryImpossible(
                f"The delivery request names {name!r} as the {what} of a table, which "
                "is no name in SQL."
            )
    return {what: str(name) for what, name in wanted.items()}
