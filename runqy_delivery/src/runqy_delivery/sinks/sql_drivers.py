# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Connect to a database: by SQLAlchemy if it is installed, else by a driver."""

from __future__ import annotations

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

#: Drivers that are used without SQLAlchemy, by the URL's scheme.
DRIVERS = {
    "postgresql": ("psycopg", "psycopg2"),
    "postgres": ("psycopg", "psycopg2"),
    "mysql": ("pymysql",),
    "sqlite": ("sqlite3",),
}

MYSQL_PORT = 3306


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
        raise DeliveryImpossible(
            f"The driver for {dsn.scheme}:// is not installed ({error}): add it to the "
            f"requirements.txt of the task code. {URL_VARIABLE} needs it."
        ) from error
    except (sqlalchemy.exc.ArgumentError, ValueError, TypeError) as error:
        raise _unusable(error) from None
    return engine.dialect.dbapi, engine.raw_connection


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
        return driver, lambda driver=driver: _connect(driver, dsn)
    raise DeliveryImpossible(
        f"No driver for {dsn.scheme}:// is installed: add "
        f"{' or '.join(names) or 'sqlalchemy and a driver'} to the requirements.txt of "
        "the task code."
    )


def _connect(driver: Any, dsn: Dsn) -> Any:
    if driver.__name__ == "sqlite3":
        return driver.connect(dsn.path[1:])
    if driver.__name__.startswith("psycopg"):
        # The login is passed separately: libpq repeats a URL that it cannot parse.
        try:
            return driver.connect(f"{dsn}{dsn.options}", **dsn.login)
        except driver.ProgrammingError as error:
            raise _unusable(error) from None
    try:
        parts = urllib.parse.urlsplit(f"//{dsn.hosts}")
        host, port = parts.hostname, parts.port or MYSQL_PORT
    except ValueError:
        raise invalid_dsn(URL_VARIABLE) from None
    login = {"user": "", "password": "", **dsn.login}
    return driver.connect(
        host=host,
        port=port,
        database=dsn.path.lstrip("/"),
        **login,
    )
