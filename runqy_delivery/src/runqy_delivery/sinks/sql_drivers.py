# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""What connects to a database: SQLAlchemy where it is installed, else its driver."""

from __future__ import annotations

import importlib
import urllib.parse
from typing import TYPE_CHECKING, Any, Callable

from runqy_delivery._dsn import unusable
from runqy_delivery.errors import DeliveryImpossible

if TYPE_CHECKING:
    from runqy_delivery._dsn import Address

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


def driver_of(address: Address) -> tuple[Any, Callable[[], Any]]:
    """Return a module of Python's database API, and what connects.

    Raises:
        DeliveryImpossible: None is installed, or it does not know such an address.
    """
    try:
        sqlalchemy = importlib.import_module("sqlalchemy")
    except ImportError:
        return _bare_driver(address)
    pool = importlib.import_module("sqlalchemy.pool").NullPool
    try:
        engine = sqlalchemy.create_engine(address.url, poolclass=pool)
    except (ImportError, sqlalchemy.exc.NoSuchModuleError) as error:
        raise DeliveryImpossible(
            f"{URL_VARIABLE} cannot be used: {type(error).__name__}: {error}"
        ) from error
    except (sqlalchemy.exc.ArgumentError, ValueError, TypeError) as error:
        # Their words, and a traceback with them, may repeat what stands in the URL.
        raise unusable(
            URL_VARIABLE, f"cannot be used ({type(error).__name__})"
        ) from None
    return engine.dialect.dbapi, engine.raw_connection


def _bare_driver(address: Address) -> tuple[Any, Callable[[], Any]]:
    names = DRIVERS.get(address.scheme, ())
    for name in names:
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        return module, lambda module=module: _connect(module, address)
    raise DeliveryImpossible(
        f"No driver for {address.scheme}:// is installed: add "
        f"{' or '.join(names) or 'sqlalchemy and a driver'} to the requirements.txt of "
        "the task code."
    )


def _connect(module: Any, address: Address) -> Any:
    if module.__name__ == "sqlite3":
        return module.connect(address.path[1:])
    if module.__name__.startswith("psycopg"):
        # The login apart: what libpq cannot read in a URL, it repeats.
        try:
            return module.connect(f"{address}{address.options}", **address.login)
        except module.ProgrammingError as error:
            raise unusable(
                URL_VARIABLE, f"cannot be used ({type(error).__name__})"
            ) from None
    try:
        parts = urllib.parse.urlsplit(f"//{address.hosts}")
        host, port = parts.hostname, parts.port or 3306
    except ValueError:
        raise unusable(URL_VARIABLE) from None
    login = {"user": "", "password": "", **address.login}
    return module.connect(
        host=host,
        port=port,
        database=address.path.lstrip("/"),
        **login,
    )
