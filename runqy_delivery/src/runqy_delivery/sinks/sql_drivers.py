# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Connect to a database: by SQLAlchemy if it is installed, else by a driver."""

from __future__ import annotations

import functools
import importlib
import urllib.parse
from typing import TYPE_CHECKING, Any, Callable

from runqy_delivery._dsn import invalid_dsn
from runqy_delivery.errors import DeliveryImpossible

if TYPE_CHECKING:
    from runqy_delivery._dsn import Dsn

#: Environment variable (a runqy vault) with the database's URL, such as
#: ``postgresql://user:password@host/database``.
URL_VARIABLE = "RUNQY_DELIVERY_DATABASE_URL"

#: Drivers by the URL's scheme, for use without SQLAlchemy, or without the one driver
#: that it takes for that scheme.
DRIVERS = {
    "postgresql": ("psycopg", "psycopg2"),
    "postgres": ("psycopg", "psycopg2"),
    "mysql": ("pymysql",),
    "sqlite": ("sqlite3",),
}

MYSQL_PORT = 3306

_MYSQL = {
    "init_command": "SET time_zone = '+00:00', "
    "sql_mode = CONCAT(@@sql_mode, ',STRICT_ALL_TABLES')"
}

#: Arguments for connecting, by SQLAlchemy's names of the drivers. PostgreSQL converts
#: text to UTF-8, whatever the encoding of the database. In MySQL, times are in UTC, and
#: a value that does not fit its column is an error: some servers would cut it.
CONNECT_ARGUMENTS: dict[str, dict[str, Any]] = {
    "psycopg": {"client_encoding": "utf8"},
    "psycopg2": {"client_encoding": "utf8"},
    "pymysql": _MYSQL,
    "mysqldb": _MYSQL,
}


def driver_of(dsn: Dsn) -> tuple[Any, Callable[[], Any]]:
    """Return a DB-API module, and a function that opens a connection.

    Raises:
        DeliveryImpossible: No driver for the DSN is installed, or the DSN is not valid
            for its driver; the message does not show its password.
    """
    try:
        sqlalchemy = importlib.import_module("sqlalchemy")
    except ImportError:
        return _driver_without_sqlalchemy(dsn)
    pool = importlib.import_module("sqlalchemy.pool").NullPool
    try:
        engine = sqlalchemy.create_engine(dsn.url, poolclass=pool)
    except (ImportError, sqlalchemy.exc.NoSuchModuleError) as error:
        if dsn.scheme in DRIVERS:
            return _driver_without_sqlalchemy(dsn)
        raise DeliveryImpossible(
            f"The driver for {dsn.scheme}:// is not installed ({error}): add it to the "
            f"requirements.txt of the task code. {URL_VARIABLE} needs it."
        ) from error
    except (sqlalchemy.exc.ArgumentError, ValueError, TypeError) as error:
        raise _unusable(error) from None

    def add_arguments(*arguments: Any) -> None:
        for name, value in CONNECT_ARGUMENTS.get(engine.driver, {}).items():
            arguments[-1].setdefault(name, value)

    sqlalchemy.event.listen(engine, "do_connect", add_arguments)
    return engine.dialect.dbapi, functools.partial(_checked, engine.raw_connection)


def _checked(connect: Callable[[], Any]) -> Any:
    """Connect; an error of an option, such as a file that is missing, is ours."""
    try:
        return connect()
    except (TypeError, ValueError, OSError) as error:
        raise _unusable(error) from None


def _unusable(error: Exception) -> DeliveryImpossible:
    """Return the error for a DSN that its driver rejects.

    It names only the type of the driver's error, and must be raised ``from None``:
    the driver's message may repeat parts of the DSN.
    """
    return invalid_dsn(URL_VARIABLE, f"cannot be used ({type(error).__name__})")


def _driver_without_sqlalchemy(dsn: Dsn) -> tuple[Any, Callable[[], Any]]:
    names = DRIVERS.get(dsn.scheme, ())
    for name in names:
        try:
            driver = importlib.import_module(name)
        except ImportError:
            continue
        connect = functools.partial(_connect, driver, dsn)
        return driver, functools.partial(_checked, connect)
    raise DeliveryImpossible(
        f"No driver for {dsn.scheme}:// is installed: add "
        f"{' or '.join(names) or 'sqlalchemy and a driver'} to the requirements.txt of "
        "the task code."
    )


def _connect(driver: Any, dsn: Dsn) -> Any:
    if driver.__name__ == "sqlite3":
        return driver.connect(dsn.path[1:])
    options = dict(urllib.parse.parse_qsl(dsn.options[1:]))
    more = {
        name: value
        for name, value in CONNECT_ARGUMENTS[driver.__name__].items()
        if name not in options
    }
    if driver.__name__.startswith("psycopg"):
        # The login is passed separately: libpq repeats a URL that it cannot parse.
        try:
            return driver.connect(f"{dsn}{dsn.options}", **more, **dsn.login)
        except driver.ProgrammingError as error:
            raise _unusable(error) from None
    try:
        parts = urllib.parse.urlsplit(f"//{dsn.hosts}")
        host, port = parts.hostname, parts.port or MYSQL_PORT
    except ValueError:
        raise invalid_dsn(URL_VARIABLE) from None
    arguments: dict[str, Any] = {
        name: int(value) if value.isdigit() else value
        for name, value in options.items()
    }
    arguments.update({"host": host, "port": port, "database": dsn.path.lstrip("/")})
    arguments.update({"user": "", "password": "", **dsn.login, **more})
    return driver.connect(**arguments)
