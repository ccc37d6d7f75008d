# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Time limits for databases: to connect, to wait for a lock, to answer.

A migration may hold a lock, a firewall may drop a connection: without a limit, a poll
would block its thread, or a worker's slot, as long as that lasts.
"""

from __future__ import annotations

import os
import socket
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy.engine import Connection, Engine

    T = TypeVar("T")

#: Seconds that connecting, a lock or a statement may take.
TIMEOUT = 15.0

#: Seconds that reading a result may take: it may be large.
RESULT_TIMEOUT = 300.0

#: Seconds that we wait longer than the server does: its error says more than ours.
SLACK = 2.0

_SECONDS = int(TIMEOUT)

_LIBPQ: dict[str, Any] = {
    "connect_timeout": _SECONDS,
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": _SECONDS * 1000,
}
_MYSQL: dict[str, Any] = {
    "connect_timeout": _SECONDS,
    "read_timeout": _SECONDS,
    "write_timeout": _SECONDS,
}

#: Connection arguments of drivers, by SQLAlchemy's names of the drivers.
_CONNECT_ARGUMENTS: dict[str, dict[str, Any]] = {
    "psycopg": _LIBPQ,
    "psycopg2": _LIBPQ,
    "mysqldb": _MYSQL,
    "pymysql": _MYSQL,
    "mysqlconnector": {"connection_timeout": _SECONDS},
    "pysqlite": {"timeout": TIMEOUT},
}

# For this transaction only: behind a pooler, the next one on this server connection may
# be that of another client.
_LIMIT = text(
    "SELECT set_config('statement_timeout', :statement, true), "
    "set_config('lock_timeout', :lock, true)"
)


def connect_timeouts(driver: str) -> dict[str, Any]:
    """Return the arguments that limit how long a driver tries to connect.

    Args:
        driver: SQLAlchemy's name of the driver. An unknown one gets no arguments.
    """
    return dict(_CONNECT_ARGUMENTS.get(driver, {}))


def in_transaction(
    engine: Engine, operation: Callable[[Connection], T], seconds: float = TIMEOUT
) -> T:
    """Run an operation in a transaction, with a time limit for each statement.

    A connection that broke while it was idle is replaced once.

    Args:
        engine: The database.
        operation: What to do; it fetches the rows that it returns. It may run twice.
        seconds: How long each of its statements may take.

    Returns:
        What the operation returns.

    Raises:
        TimeoutError: The database did not answer in time.
        SQLAlchemyError: Any other error of the database or the connection.
    """
    try:
        return _run_once(engine, operation, seconds)
    except DBAPIError as error:
        if not error.connection_invalidated:
            raise
    return _run_once(engine, operation, seconds)


def _run_once(
    engine: Engine, operation: Callable[[Connection], T], seconds: float
) -> T:
    with engine.connect() as connection:
        driver_connection = connection.connection.driver_connection
        with abort_after(driver_connection, seconds), connection.begin():
            if engine.dialect.name == "postgresql":
                limits = {
                    "statement": f"{seconds * 1000:.0f}",
                    "lock": f"{min(seconds, TIMEOUT) * 1000:.0f}",
                }
                connection.execute(_LIMIT, limits)
            return operation(connection)


@contextmanager
def abort_after(driver_connection: Any, seconds: float) -> Iterator[None]:
    """Shut a connection down if the block takes longer than the limit and SLACK.

    As long as the other side's kernel acknowledges what they send, drivers wait for an
    answer without end; once the connection is shut down, they fail at once.

    Args:
        driver_connection: The driver's connection. One without a ``fileno`` is never
            shut down.
        seconds: The limit.

    Raises:
        TimeoutError: The connection was shut down.
    """
    was_aborted = threading.Event()

    def abort() -> None:
        was_aborted.set()
        _shut_down(driver_connection)

    timer = threading.Timer(seconds + SLACK, abort)
    timer.daemon = True
    timer.start()
    try:
        yield
    except Exception as error:
        if was_aborted.is_set():
            raise TimeoutError(f"it did not answer within {seconds:.0f} s") from error
        raise
    finally:
        timer.cancel()


def _shut_down(driver_connection: Any) -> None:
    fileno = getattr(driver_connection, "fileno", None)
    if fileno is None or getattr(driver_connection, "closed", False):
        return
    with suppress(OSError), socket.socket(fileno=os.dup(fileno())) as connected:
        connected.shutdown(socket.SHUT_RDWR)
