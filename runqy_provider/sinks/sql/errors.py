# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Translate SQLAlchemy's errors, and those of database drivers, into ours."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy.exc import (
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
from runqy_provider.sinks.sql.timeouts import TIMEOUT

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class _ErrorKind:
    """Errors of databases with one meaning, recognised by code or by message.

    Attributes:
        codes: Codes of the SQL standard (SQLSTATE), and PostgreSQL's own.
        texts: Parts of messages in lower case, for drivers that report no code.
    """

    codes: frozenset[str]
    texts: tuple[str, ...] = ()

    def matches(self, code: str, message: str) -> bool:
        """Return whether an error is of this kind."""
        return code in self.codes or any(text in message for text in self.texts)


_DENIED = _ErrorKind(
    frozenset({"28000", "28P01", "42501"}),
    ("authentication failed", "access denied", "command denied", "permission denied"),
)
_MISSING = _ErrorKind(
    frozenset({"42P01", "42703", "42S02", "42S22", "3D000", "3F000"}),
    (
        "no such table",
        "no such column",
        "doesn't exist",
        "unknown column",
        "unknown database",
    ),
)
_WRONG_TYPE = _ErrorKind(frozenset({"22P02", "42883", "42804"}))

_LOCK_TIMEOUT_CODE = "55P03"
_TIMED_OUT = _ErrorKind(
    frozenset({"57014", _LOCK_TIMEOUT_CODE}),
    ("timeout expired", "timed out", "database is locked"),
)

#: A prepared statement does not exist, or exists already: a pooler has switched to
#: another server connection. The next poll gets another one.
_POOLER_CODES = frozenset({"26000", "42P05"})


@contextmanager
def sql_errors(
    location: str, conn_id: str, operation: str, seconds: float = TIMEOUT
) -> Iterator[None]:
    """Turn errors of SQLAlchemy into ours.

    Args:
        location: The table, for the message: ``"table results"``.
        conn_id: The Airflow connection in use.
        operation: What was attempted, for the message: ``"read"``.
        seconds: How long a statement may take.

    Raises:
        NoAccess: The database refused access.
        NotThere: The table, or one of its columns, does not exist.
        Misconfigured: The column of the id has a type that cannot hold our ids.
        SinkUnavailable: The database did not answer, or broke the connection.
        SinkError: Any other error.
    """
    try:
        yield
    except DBAPIError as error:
        raise _translate(error, location, conn_id, operation, seconds) from error
    except SQLAlchemyError as error:
        raise SinkUnavailable(f"Could not {operation} {location}: {error}") from error
    except TimeoutError as error:
        raise SinkUnavailable(
            f"Could not {operation} {location} (connection {conn_id!r}): {error}."
        ) from error


def _translate(
    error: DBAPIError, location: str, conn_id: str, operation: str, seconds: float
) -> SinkError | Misconfigured:
    """Return our error for an error of the database."""
    # The driver's error: SQLAlchemy's message repeats the statement.
    message = f"{type(error.orig).__name__}: {error.orig}".strip()
    code, text = _code(error.orig), message.lower()
    failed = f"Could not {operation} {location}"
    if _DENIED.matches(code, text):
        return NoAccess(
            f"{failed}: {message}. Check login, password and permissions of "
            f"connection {conn_id!r}."
        )
    if _MISSING.matches(code, text):
        return NotThere(
            f"{failed}: {message}. Create it as in docs/how-to/sinks/sql.md, or name "
            "table and columns in the sink: sql://conn_id/table?id=job&result=out."
        )
    if _WRONG_TYPE.matches(code, text) or isinstance(error, DataError):
        return Misconfigured(
            f"{failed}: {message}. The id of a row is a delivery_id: its column must "
            "be a text or a UUID."
        )
    failed += f" (connection {conn_id!r})"
    if _TIMED_OUT.matches(code, text):
        # No statement waits longer for a lock than a poll may take.
        limit = TIMEOUT if code == _LOCK_TIMEOUT_CODE else seconds
        return SinkUnavailable(
            f"{failed}: it did not answer within {limit:.0f} s ({message}). Check "
            "whether another session holds a lock on it, as a migration does."
        )
    if _may_pass(error, code):
        return SinkUnavailable(f"{failed}: {message}")
    return SinkError(f"{failed}: {message}")


def _may_pass(error: DBAPIError, code: str) -> bool:
    """Return whether a later attempt may succeed."""
    return (
        code in _POOLER_CODES
        or error.connection_invalidated
        or isinstance(error, (OperationalError, InterfaceError))
    )


def _code(error: BaseException | None) -> str:
    """Return the SQLSTATE of a driver's error, or ""; psycopg2 calls it pgcode."""
    for name in ("sqlstate", "pgcode"):
        code = getattr(error, name, None)
        if code:
            return str(code)
    return ""
