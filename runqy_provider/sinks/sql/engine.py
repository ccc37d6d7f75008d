# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Database engines, one per connection and process.

The hook of the connection creates the engine, so that every database that Airflow's
common-sql hooks support can be a sink.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from sqlalchemy import event
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import QueuePool

from runqy_delivery.sinks.sql_drivers import CONNECT_ARGUMENTS
from runqy_provider.airflow_compat import get_connection
from runqy_provider.caching import TtlCache
from runqy_provider.errors import Misconfigured
from runqy_provider.sinks.sql.timeouts import TIMEOUT, connect_timeouts

if TYPE_CHECKING:
    from airflow.sdk import Connection
    from sqlalchemy.engine import Engine

#: Seconds after which an engine is created again, so that a change of its connection is
#: noticed.
ENGINE_TTL = 900.0

#: Seconds after which a failed creation is retried.
RETRY_AFTER = 60.0

#: One connection for polls, and more for tasks that read results and for other tables.
POOL = {
    "poolclass": QueuePool,  # not the default of SQLAlchemy 1.4 for SQLite
    "pool_size": 1,
    "max_overflow": 4,
    "pool_timeout": TIMEOUT,
}

#: Arguments of drivers for poolers: a pooler may give each transaction another server
#: connection, where a statement that was prepared before does not exist.
POOLER_ARGUMENTS: dict[str, dict[str, Any]] = {"psycopg": {"prepare_threshold": None}}

#: Extras of a PostgreSQL connection that are for the hook, not the driver: old hooks
#: do not list all of them in ``ignored_extra_options``.
_HOOK_EXTRAS = frozenset({"sqlalchemy_scheme", "sqlalchemy_query", "azure_conn_id"})

#: The engines of this process.
ENGINES: TtlCache[Engine] = TtlCache(ENGINE_TTL, RETRY_AFTER)

#: Arguments of each engine's driver for connecting, besides those in its URL.
_arguments: weakref.WeakKeyDictionary[Engine, dict[str, Any]] = (
    weakref.WeakKeyDictionary()
)


def sql_engine(conn_id: str) -> Engine:
    """Return the process's engine for a database connection.

    Blocks while the connection is fetched from Airflow: from async code, call it in a
    thread. If it cannot be fetched, an engine that was created before stays in use.

    Raises:
        Misconfigured: The connection is not one to a SQL database, or its hook cannot
            create an engine.
    """

    def make(previous: Engine | None) -> Engine:
        engine = _create_engine(conn_id)
        if previous is not None:
            previous.dispose()
        return engine

    return ENGINES.get(f"The engine of connection {conn_id!r}", make)


def connect_arguments(engine: Engine) -> dict[str, Any]:
    """Return the driver's arguments for connecting, which may include a password.

    For a connection that is opened without the engine.
    """
    _, arguments = engine.dialect.create_connect_args(engine.url)
    return {**_arguments.get(engine, {}), **arguments}


def _create_engine(conn_id: str) -> Engine:
    connection = get_connection(conn_id)
    hook: Any = connection.get_hook()  # type: ignore[no-untyped-call] # Airflow's
    if not hasattr(hook, "get_sqlalchemy_engine"):
        raise Misconfigured(
            f"Connection {conn_id!r} is of the type {connection.conn_type!r}, which is "
            "not a SQL database: name one that is in the sink sql://conn_id/table."
        )
    # Messages must not quote the parameters of statements.
    options = {**POOL, "hide_parameters": True}
    try:
        engine: Engine = hook.get_sqlalchemy_engine(engine_kwargs=options)
    except (ArgumentError, NotImplementedError, ImportError) as error:
        raise Misconfigured(
            f"Could not create a SQLAlchemy engine for connection {conn_id!r} (type "
            f"{connection.conn_type!r}): {type(error).__name__}: {error}. Check its "
            "fields, and that the driver is installed."
        ) from error
    more = {
        **connect_timeouts(engine.driver),
        **POOLER_ARGUMENTS.get(engine.driver, {}),
        **CONNECT_ARGUMENTS.get(engine.driver, {}),
        **_driver_extras(connection, hook),
    }

    def add_arguments(
        _dialect: object, _record: object, _positional: object, named: dict[str, Any]
    ) -> None:
        for name, value in more.items():
            named.setdefault(name, value)

    event.listen(engine, "do_connect", add_arguments)
    _arguments[engine] = more
    return engine


def _driver_extras(connection: Connection, hook: Any) -> dict[str, Any]:
    """Return the connection's extras that are for the driver, such as ``sslmode``.

    A hook with ``ignored_extra_options`` passes all other extras to its driver, but not
    in the URL of its engine. The URLs of other hooks contain their extras.
    """
    ignored = getattr(hook, "ignored_extra_options", None)
    if ignored is None:
        return {}
    extras: dict[str, Any] = connection.extra_dejson
    return {
        name: value
        for name, value in extras.items()
        if name not in ignored and name not in _HOOK_EXTRAS
    }
