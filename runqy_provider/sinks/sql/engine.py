# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Database engines, one per connection and process.

The engine is the one that the connection's own hook makes, so that every database that
Airflow's common-sql hooks speak can be a sink.
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseHook
from sqlalchemy import event
from sqlalchemy.exc import ArgumentError

from runqy_provider.errors import Misconfigured
from runqy_provider.sinks.sql.timeouts import BOUND, connect_bounds

if TYPE_CHECKING:
    from airflow.sdk import Connection
    from sqlalchemy.engine import Engine

log = logging.getLogger(__name__)

#: Seconds after which an engine is made anew, so that a changed connection is noticed.
ENGINE_TTL = 900.0

#: Seconds after which that is tried again, where it did not work.
ENGINE_RETRY = 60.0

#: One connection for looks; a reading task, or a second table, may need one more.
POOL = {"pool_size": 1, "max_overflow": 4, "pool_timeout": BOUND}

#: What lets a driver work behind a pooler that gives each transaction another server
#: connection, where a statement that was prepared before is not known.
POOLED: dict[str, dict[str, Any]] = {"psycopg": {"prepare_threshold": None}}

#: Extras of a PostgreSQL connection that tell the hook something, not the driver; old
#: hooks do not count all of them among theirs.
_FOR_THE_HOOK = frozenset({"sqlalchemy_scheme", "sqlalchemy_query", "azure_conn_id"})

_engines: dict[str, tuple[float, Engine]] = {}
_lock = threading.Lock()

#: What each engine's driver is given when it connects, besides what its URL says.
_given: weakref.WeakKeyDictionary[Engine, dict[str, Any]] = weakref.WeakKeyDictionary()


def sql_engine(conn_id: str) -> Engine:
    """Return the process's engine for a database connection.

    Blocks while Airflow is asked for the connection: from async code, call it in a
    thread. Where Airflow cannot say just now, an engine that was made before stays.

    Raises:
        Misconfigured: It is no connection to a database with a SQLAlchemy dialect.
    """
    with _lock:
        made, old = _engines.get(conn_id, (0.0, None))
        if old is not None and time.monotonic() - made <= ENGINE_TTL:
            return old
        try:
            engine = _make(conn_id)
        except Exception as error:
            if old is None:
                raise
            # The type alone: what cannot read a connection may quote its password.
            log.warning(
                "Connection %r could not be read anew (%s): the database is asked "
                "with what is known of it. Next try in %.0f s.",
                conn_id,
                type(error).__name__,
                ENGINE_RETRY,
            )
            _engines[conn_id] = time.monotonic() - ENGINE_TTL + ENGINE_RETRY, old
            return old
        _engines[conn_id] = time.monotonic(), engine
        if old is not None:
            old.dispose()
        return engine


def connect_arguments(engine: Engine) -> dict[str, Any]:
    """Return what an engine's driver is given when it connects.

    For a connection beside the engine's: it may hold a password.
    """
    _, arguments = engine.dialect.create_connect_args(engine.url)
    return {**_given.get(engine, {}), **arguments}


def _make(conn_id: str) -> Engine:
    connection = BaseHook.get_connection(conn_id)
    hook: Any = connection.get_hook()  # type: ignore[no-untyped-call] # Airflow's
    if not hasattr(hook, "get_sqlalchemy_engine"):
        raise Misconfigured(
            f"Connection {conn_id!r} is of the type {connection.conn_type!r}, which is "
            "no SQL database: a sink sql://conn_id/table needs one."
        )
    # Statements' parameters are ids and results: they do not belong in messages.
    options = {**POOL, "hide_parameters": True}
    try:
        engine: Engine = hook.get_sqlalchemy_engine(engine_kwargs=options)
    except (ArgumentError, NotImplementedError, ImportError) as error:
        raise Misconfigured(
            f"Connection {conn_id!r} (type {connection.conn_type!r}) has no SQLAlchemy "
            f"engine: {type(error).__name__}: {error}"
        ) from error
    given = {
        **connect_bounds(engine.driver),
        **POOLED.get(engine.driver, {}),
        **_extras(connection, hook),
    }

    def complete(
        _dialect: object, _record: object, _positional: object, named: dict[str, Any]
    ) -> None:
        for name, value in given.items():
            named.setdefault(name, value)

    event.listen(engine, "do_connect", complete)
    _given[engine] = given
    return engine


def _extras(connection: Connection, hook: Any) -> dict[str, Any]:
    """Return the connection's extras that its hook gives the driver, as ``sslmode``.

    A hook that says which extras it keeps for itself gives all others to its driver;
    its engine's URL has none of them. Other hooks' URLs have them.
    """
    kept = getattr(hook, "ignored_extra_options", None)
    if kept is None:
        return {}
    extras: dict[str, Any] = connection.extra_dejson
    return {
        name: value
        for name, value in extras.items()
        if name not in kept and name not in _FOR_THE_HOOK
    }
