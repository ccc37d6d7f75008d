# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Find the stored connection that a temporary copy was made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.models.connection import Connection as StoredConnection
from airflow.utils.session import create_session
from sqlalchemy import select

from runqy_provider.connections import extra_of
from runqy_provider.errors import Misconfigured

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from airflow.sdk import Connection

    from runqy_provider.connections import ConnectionLike


def stored_conn_id(connection: Connection) -> str | None:
    """Return the id under which Airflow's database has a connection like this one.

    Args:
        connection: A connection, perhaps under a temporary id.

    Returns:
        Its own id where that is stored. Else the id of the only stored runqy
        connection with the same fields; None where there is none, or more than one.
    """
    with create_session() as session:
        statement = select(StoredConnection).where(
            StoredConnection.conn_type == "runqy"
        )
        stored = list(session.scalars(statement))
        if any(each.conn_id == connection.conn_id for each in stored):
            return connection.conn_id
        wanted = _fields(connection)
        same = [each.conn_id for each in stored if _fields(each) == wanted]
    return same[0] if len(same) == 1 else None


def _fields(connection: ConnectionLike) -> Mapping[str, Any] | None:
    """Return what makes two connections the same, as texts: a URI has only texts."""
    try:
        extra = extra_of(connection)
    except Misconfigured:
        return None
    given = {
        name: str(value) for name, value in extra.items() if value not in ("", None)
    }
    return {
        "host": connection.host or "",
        "port": connection.port or 0,
        "password": connection.password or "",
        **given,
    }
