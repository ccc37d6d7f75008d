# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Which runqy connections Airflow has, and what they name."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from airflow.models.connection import Connection
from airflow.utils.session import create_session
from sqlalchemy import select

from runqy_provider.airflow_compat import AirflowNotFoundException, team_of
from runqy_provider.context import context_of
from runqy_provider.errors import Misconfigured
from runqy_provider.plugins.receiver import find_connection

if TYPE_CHECKING:
    from runqy_provider.context import SinkContext

CONN_TYPE = "runqy"

#: The environment variables in which Airflow looks for connections.
VARIABLE_PREFIX = "AIRFLOW_CONN_"


def list_connections() -> dict[str, str | None]:
    """Return the ids of all runqy connections and the team of each, if it has one.

    Those in the database and in environment variables. A secrets backend cannot list
    what it has.
    """
    with create_session() as session:
        statement = select(Connection.conn_id, team_of(Connection)).where(
            Connection.conn_type == CONN_TYPE
        )
        teams = {row.conn_id: row.team_name for row in session.execute(statement)}
    for name, value in os.environ.items():
        if name.startswith(VARIABLE_PREFIX) and _is_runqy(value):
            teams.setdefault(name.removeprefix(VARIABLE_PREFIX).lower(), None)
    return teams


def load_connection(conn_id: str) -> SinkContext:
    """Return a runqy connection and what it names, in the calling thread.

    Raises:
        Misconfigured: It does not exist, or a field is not valid.
    """
    try:
        return context_of(find_connection(conn_id), find_connection)
    except AirflowNotFoundException as error:
        raise Misconfigured(
            f"Connection {conn_id!r} does not exist, or Airflow could not look it up. "
            "Create it under Admin, Connections."
        ) from error


def _is_runqy(value: str) -> bool:
    """Return whether an environment variable holds a runqy connection."""
    if value.startswith(f"{CONN_TYPE}:"):
        return True
    try:
        fields = json.loads(value)
    except ValueError:
        return False
    return isinstance(fields, dict) and fields.get("conn_type") == CONN_TYPE
