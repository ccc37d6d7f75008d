# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Airflow's own authorisation: the only module of the page that imports its internals.

Airflow makes no promise about the modules that it imports.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.core_api.security import (
    GetUserDep,
    requires_access_connection,
    requires_access_dag,
)
from fastapi import Depends

from runqy_provider import airflow_compat

if TYPE_CHECKING:
    from collections.abc import Mapping

#: The user who is logged in.
User = GetUserDep

#: Refuses a request of a user who may not see connections.
SEES_CONNECTIONS = Depends(requires_access_connection("GET"))

#: Refuses a request of a user who may not see task instances of any DAG.
SEES_TASKS = Depends(requires_access_dag("GET", DagAccessEntity.TASK_INSTANCE))


def may_see_page(user: Any) -> bool:
    """Return whether the page shows anything to a user."""
    manager = get_auth_manager()
    return manager.is_authorized_connection(
        method="GET", user=user
    ) or manager.is_authorized_dag(
        method="GET", access_entity=DagAccessEntity.TASK_INSTANCE, user=user
    )


def readable_dags(user: Any) -> set[str]:
    """Return the ids of the DAGs that a user may read."""
    return get_auth_manager().get_authorized_dag_ids(user=user, method="GET")


def readable_connections(user: Any, teams: Mapping[str, str | None]) -> set[str]:
    """Return the ids of the connections that a user may read.

    Args:
        user: The user.
        teams: By id of a connection: the team that it belongs to, if any.
    """
    by_team: dict[str | None, set[str]] = defaultdict(set)
    for conn_id, team in teams.items():
        by_team[team].add(conn_id)
    manager = get_auth_manager()
    readable: set[str] = set()
    for team, conn_ids in by_team.items():
        readable |= airflow_compat.readable_connections(manager, conn_ids, user, team)
    return readable
