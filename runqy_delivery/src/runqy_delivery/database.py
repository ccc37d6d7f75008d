# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Deliver into a table: SQLAlchemy where it is installed, else the database's driver.

The address of the database is a secret, so it comes from the worker's environment (a
runqy vault) and never from the payload.
"""

from __future__ import annotations

import importlib
import logging
import os
import re
import urllib.parse
from contextlib import closing
from typing import TYPE_CHECKING, Any

from runqy_delivery.errors import DeliveryUndeliverable
from runqy_delivery.patience import persist
from runqy_delivery.wire import COMPLETED, FAILED

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

log = logging.getLogger("runqy_delivery")

#: Environment variable (a runqy vault) with the database's URL, such as
#: ``postgresql://user:password@host/database``.
URL_VARIABLE = "RUNQY_DELIVERY_DATABASE_URL"

#: Drivers that are used without SQLAlchemy, by the URL's scheme.
DRIVERS = {
    "postgresql": ("psycopg", "psycopg2"),
    "postgres": ("psycopg", "psycopg2"),
    "mysql": ("pymysql",),
    "sqlite": ("sqlite3",),
}

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)?")


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
        DeliveryUndeliverable: The database is away, or does not take it.
    """
    names = _names(table)
    url = os.environ.get(URL_VARIABLE)
    if not url:
        raise DeliveryUndeliverable(
            f"The result goes to the table {names['name']}, but {URL_VARIABLE} is not "
            "set: put the database's URL into a vault of this queue."
        )
    module, connect = _driver(url)
    what = f"Writing to table {names['name']} at {_show(url)}"

    def attempt() -> None:
        with closing(connect()) as connection:
            _Row(connection, module, names, delivery_id).finish(status, result.decode())

    try:
        persist(what, attempt, (module.OperationalError, module.InterfaceError))
    except module.Error as error:
        raise DeliveryUndeliverable(
            f"{what} did not work: {type(error).__name__}: {error}"
        ) from error


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
        found = self._run("SELECT {status} FROM {name} WHERE {id} = ?", [self._id])
        if found.fetchone() is not None:
            return False
        try:
            self._run(
                "INSERT INTO {name} ({id}, {status}, {result}, {completed_at}) "
                "VALUES (?, ?, ?, CURRENT_TIMESTAMP)",
                [self._id, status, result],
            )
        except self._module.IntegrityError:
            # Somebody else's row came in between; what it says is found by then.
            self._connection.rollback()
            raise self._module.OperationalError(
                f"row {self._id} appeared meanwhile"
            ) from None
        return True

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
        DeliveryUndeliverable: One of them is none.
    """
    wanted = {name: table.get(name) for name in ("name", "id", "status", "result")}
    wanted["completed_at"] = table.get("completed_at")
    if table.get("notify") is not None:
        wanted["notify"] = table["notify"]
    for what, name in wanted.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise DeliveryUndeliverable(
                f"The delivery request names {name!r} as the {what} of a table, which "
                "is no name in SQL."
            )
    return {what: str(name) for what, name in wanted.items()}


def _driver(url: str) -> tuple[Any, Any]:
    """Return a module of Python's database API, and what connects."""
    try:
        sqlalchemy = importlib.import_module("sqlalchemy")
    except ImportError:
        return _bare_driver(url)
    pool = importlib.import_module("sqlalchemy.pool").NullPool
    try:
        engine = sqlalchemy.create_engine(url, poolclass=pool)
    except (ImportError, sqlalchemy.exc.ArgumentError) as error:
        raise DeliveryUndeliverable(
            f"{URL_VARIABLE} cannot be used: {type(error).__name__}: {error}"
        ) from error
    return engine.dialect.dbapi, engine.raw_connection


def _bare_driver(url: str) -> tuple[Any, Any]:
    scheme = urllib.parse.urlsplit(url).scheme
    names = DRIVERS.get(scheme, ())
    for name in names:
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        return module, lambda module=module: _connect(module, url)
    raise DeliveryUndeliverable(
        f"No driver for {scheme}:// is installed: add "
        f"{' or '.join(names) or 'sqlalchemy and a driver'} to the requirements.txt of "
        "the task code."
    )


def _connect(module: Any, url: str) -> Any:
    if module.__name__.startswith("psycopg"):
        return module.connect(url)
    parts = urllib.parse.urlsplit(url)
    if module.__name__ == "sqlite3":
        return module.connect(parts.path[1:])
    return module.connect(
        host=parts.hostname,
        port=parts.port or 3306,
        user=urllib.parse.unquote(parts.username or ""),
        password=urllib.parse.unquote(parts.password or ""),
        database=parts.path.lstrip("/"),
    )


def _show(url: str) -> str:
    """Return the database's address without login, password and options."""
    parts = urllib.parse.urlsplit(url)
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.hostname or ''}{port}{parts.path}"
