# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Database engines, one per connection and process, and our errors for SQLAlchemy's.

The engine is the one that the connection's own hook makes, so that every database that
Airflow's common-sql hooks speak can be a sink.
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseHook
from sqlalchemy.exc import (
    ArgumentError,
    DataError,
    DBAPIError,
    InterfaceError,
    OperationalError,
    SQLAlchemyError,
)

from runqy_provider.errors import (
    Misconfigured,
    NoAccess,
    NotThere,
    SinkError,
    SinkUnavailable,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.engine import Engine

#: Seconds after which an engine is made anew, so that a changed connection is noticed.
ENGINE_TTL = 900.0

#: One connection for looks; a reading task, or a second table, may need one more.
POOL = {"pool_size": 1, "max_overflow": 4, "pool_pre_ping": True}

#: What databases say in their own ways; by the SQL standard's code where there is one.
_MISSING_CODES = frozenset({"42P01", "42703", "42S02", "42S22", "3D000", "3F000"})
_MISSING_WORDS = ("no such table", "no such column", "doesn't exist", "unknown column")
_DENIED_CODES = frozenset({"28000", "28P01", "42501"})
_DENIED_WORDS = ("authentication failed", "access denied", "permission denied")
_WRONG_TYPE_CODES = frozenset({"22P02", "42883", "42804"})

_engines: dict[str, tuple[float, Engine]] = {}
_lock = threading.Lock()


def sql_engine(conn_id: str) -> Engine:
    """Return the process's engine for a database connection.

    Blocks while Airflow is asked for the connection: from async code, call it in a
    thread.

    Raises:
        Misconfigured: It is no connection to a database with a SQLAlchemy dialect.
    """
    with _lock:
        made, engine = _engines.get(conn_id, (0.0, None))
        if engine is None or time.monotonic() - made > ENGINE_TTL:
            if engine is not None:
                engine.dispose()
            engine = _make(conn_id)
            _engines[conn_id] = time.monotonic(), engine
        return engine


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
    return engine


@contextmanager
def sql_errors(place: str, conn_id: str, what: str) -> Iterator[None]:
    """Turn SQLAlchemy's errors into ours.

    Args:
        place: Which table, for the message.
        conn_id: The Airflow connection in use.
        what: What was being done: ``"read"``.
    """
    try:
        yield
    except DBAPIError as error:
        raise _translated(error, place, conn_id, what) from error
    except SQLAlchemyError as error:
        raise SinkUnavailable(f"Could not {what} {place}: {error}") from error


def _translated(
    error: DBAPIError, place: str, conn_id: str, what: str
) -> SinkError | Misconfigured:
    # The driver's own words: SQLAlchemy's repeat the statement.
    words = f"{type(error.orig).__name__}: {error.orig}".strip()
    code = str(getattr(error.orig, "sqlstate", None) or "")
    said = words.lower()
    if code in _DENIED_CODES or any(text in said for text in _DENIED_WORDS):
        return NoAccess(
            f"Could not {what} {place}: {words}. Check login, password and rights of "
            f"connection {conn_id!r}."
        )
    if code in _MISSING_CODES or any(text in said for text in _MISSING_WORDS):
        return NotThere(
            f"Could not {what} {place}: {words}. Create it as in docs/sinks.md, or "
            "name table and columns in the sink: sql://conn_id/table?id=job&result=out."
        )
    if code in _WRONG_TYPE_CODES or isinstance(error, DataError):
        return Misconfigured(
            f"Could not {what} {place}: {words}. The id of a row is a delivery_id: its "
            "column must be a text or a UUID."
        )
    if error.connection_invalidated or isinstance(
        error, (OperationalError, InterfaceError)
    ):
        return SinkUnavailable(
            f"Could not {what} {place} (connection {conn_id!r}): {words}"
        )
    return SinkError(f"Could not {what} {place} (connection {conn_id!r}): {words}")
