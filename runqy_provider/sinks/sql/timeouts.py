# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""How long a database may take: to connect, to give up a lock, to answer.

A migration holds a lock, a firewall forgets a connection: a look that waits for either
without end would keep a thread, or a worker's slot, for as long.
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

    Made = TypeVar("Made")

#: Seconds that connecting, a lock, a look may take.
BOUND = 15.0

#: Seconds that a statement may take which brings a result home, however large.
RESULT_BOUND = 300.0

#: Seconds by which we outwait the server, whose own words are better than ours.
SLACK = 2.0

_SECONDS = int(BOUND)

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

#: What drivers take when they connect, by SQLAlchemy's names of them.
_CONNECT_ARGUMENTS: dict[str, dict[str, Any]] = {
    "psycopg": _LIBPQ,
    "psycopg2": _LIBPQ,
    "mysqldb": _MYSQL,
    "pymysql": _MYSQL,
    "mysqlconnector": {"connection_timeout": _SECONDS},
    "pymssql": {"login_timeout": _SECONDS},  # its other one is the whole process's
    "pysqlite": {"timeout": BOUND},
}

# For this transaction only: behind a pooler, the next may be somebody else's.
_LIMIT = text(
    "SELECT set_config('statement_timeout', :statement, true), "
    "set_config('lock_timeout', :lock, true)"
)


def connect_bounds(driver: str) -> dict[str, Any]:
    """Return what a driver is to be given, when it connects, so that it gives up.

    Args:
        driver: SQLAlchemy's name of it. An unknown one is given nothing.
    """
    return dict(_CONNECT_ARGUMENTS.get(driver, {}))


def in_transaction(
    engine: Engine, deed: Callable[[Connection], Made], seconds: float = BOUND
) -> Made:
    """Do something in a transaction that takes no longer than it may.

    A connection that broke while it lay idle is replaced once.

    Args:
        engine: The database.
        deed: What to do; it fetches what it wants to keep. It may be done twice.
        seconds: How long each of its statements may take.

    Raises:
        TimeoutError: The database kept silent.
        SQLAlchemyError: As SQLAlchemy has it.
    """
    try:
        return _once(engine, deed, seconds)
    except DBAPIError as error:
        if not error.connection_invalidated:
            raise
    return _once(engine, deed, seconds)


def _once(engine: Engine, deed: Callable[[Connection], Made], seconds: float) -> Made:
    with engine.connect() as connection:
        driver_connection = connection.connection.driver_connection
        with cut_after(driver_connection, seconds), connection.begin():
            if engine.dialect.name == "postgresql":
                limits = {
                    "statement": f"{seconds * 1000:.0f}",
                    "lock": f"{min(seconds, BOUND) * 1000:.0f}",
                }
                connection.execute(_LIMIT, limits)
            return deed(connection)


@contextmanager
def cut_after(driver_connection: Any, seconds: float) -> Iterator[None]:
    """Cut a connection if the block takes longer, and a little.

    Drivers wait for an answer without end as long as the other side's kernel
    acknowledges what they send; cut off, they fail at once. Those that give no file
    number are left alone.

    Raises:
        TimeoutError: It was cut.
    """
    was_cut = threading.Event()

    def cut() -> None:
        was_cut.set()
        _shut_down(driver_connection)

    timer = threading.Timer(seconds + SLACK, cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    except Exception as error:
        if was_cut.is_set():
            raise TimeoutError(f"it did not answer within {seconds:.0f} s") from error
        raise
    finally:
        timer.cancel()


def _shut_down(driver_connection: Any) -> None:
    fileno = getattr(driver_connection, "fileno", None)
    if fileno is None or getattr(driver_connection, "closed", False):
        return
    with suppress(OSError), socket.socket(fileno=os.dup(fileno())) as line:
        line.shutdown(socket.SHUT_RDWR)
