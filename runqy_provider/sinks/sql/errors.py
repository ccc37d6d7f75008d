# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Our errors for SQLAlchemy's, and for what databases say in their own ways."""

from __future__ import annotations

from contextlib import contextmanager
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
from runqy_provider.sinks.sql.timeouts import BOUND

if TYPE_CHECKING:
    from collections.abc import Iterator

#: By the SQL standard's code where there is one, else by words.
_MISSING_CODES = frozenset({"42P01", "42703", "42S02", "42S22", "3D000", "3F000"})
_MISSING_WORDS = ("no such table", "no such column", "doesn't exist", "unknown column")
_DENIED_CODES = frozenset({"28000", "28P01", "42501"})
_DENIED_WORDS = ("authentication failed", "access denied", "permission denied")
_WRONG_TYPE_CODES = frozenset({"22P02", "42883", "42804"})
_TIMEOUT_CODES = frozenset({"57014", "55P03"})
#: A prepared statement that is unknown, or known already: a pooler gave us another
#: server connection, and the next look has another one.
_POOLER_CODES = frozenset({"26000", "42P05"})
_TIMEOUT_WORDS = ("timeout expired", "timed out", "database is locked")


@contextmanager
def sql_errors(
    place: str, conn_id: str, what: str, seconds: float = BOUND
) -> Iterator[None]:
    """Turn SQLAlchemy's errors into ours.

    Args:
        place: Which table, for the message.
        conn_id: The Airflow connection in use.
        what: What was being done: ``"read"``.
        seconds: How long that might take.
    """
    try:
        yield
    except DBAPIError as error:
        raise _translated(error, place, conn_id, what, seconds) from error
    except SQLAlchemyError as error:
        raise SinkUnavailable(f"Could not {what} {place}: {error}") from error
    except TimeoutError as error:
        raise SinkUnavailable(
            f"Could not {what} {place} (connection {conn_id!r}): {error}."
        ) from error


def _translated(
    error: DBAPIError, place: str, conn_id: str, what: str, seconds: float
) -> SinkError | Misconfigured:
    # The driver's own words: SQLAlchemy's repeat the statement.
    words = f"{type(error.orig).__name__}: {error.orig}".strip()
    code = _code(error.orig)
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
    if code in _TIMEOUT_CODES or any(text in said for text in _TIMEOUT_WORDS):
        # A lock is never waited for longer than a look.
        limit = BOUND if code == "55P03" else seconds
        return SinkUnavailable(
            f"Could not {what} {place} (connection {conn_id!r}): it did not answer "
            f"within {limit:.0f} s ({words}). Check that nobody has locked it, as a "
            "migration does."
        )
    if (
        code in _POOLER_CODES
        or error.connection_invalidated
        or isinstance(error, (OperationalError, InterfaceError))
    ):
        return SinkUnavailable(
            f"Could not {what} {place} (connection {conn_id!r}): {words}"
        )
    return SinkError(f"Could not {what} {place} (connection {conn_id!r}): {words}")


def _code(error: BaseException | None) -> str:
    """Return the SQL standard's code, which psycopg2 calls by another name."""
    for name in ("sqlstate", "pgcode"):
        code = getattr(error, name, None)
        if code:
            return str(code)
    return ""
