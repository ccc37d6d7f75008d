# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The page's HTTP application: the page itself, and the data that it shows."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.core_api.security import (
    GetUserDep,
    requires_access_connection,
    requires_access_dag,
)
from fastapi import Depends, FastAPI, HTTPException, Query
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, Response

from runqy_provider import airflow_compat
from runqy_provider.plugins.page.data import PageData
from runqy_provider.plugins.page.waits import Filter  # noqa: TC001 - FastAPI needs it

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from fastapi import Request

STATIC = Path(__file__).parent / "static"

#: Media types of the page's files, by suffix.
MEDIA_TYPES = {".css": "text/css", ".js": "text/javascript"}

#: Sent with every response. Nothing is loaded from elsewhere, and no other site shows
#: the page in a frame.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; "
    "style-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}

NOT_ALLOWED = (
    "<!doctype html><html lang=en><title>runqy</title>"
    "<p>You may see neither connections nor task instances. Ask an administrator of "
    "Airflow for the right to read one of them."
)


def page_app(path: str) -> dict[str, Any]:
    """Return the page for ``AirflowPlugin.fastapi_apps``.

    Args:
        path: Where Airflow mounts it.
    """
    return {"name": "runqy page", "app": create_app(), "url_prefix": path}


def create_app() -> FastAPI:
    """Return the application."""
    data = PageData()

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        await data.aclose()

    app = FastAPI(
        title="runqy page",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
    )
    _add_files(app)

    @app.middleware("http")
    async def add_headers(
        request: Request, call_next: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        response = await call_next(request)
        response.headers.update(HEADERS)
        return response

    @app.get("/api/connections", dependencies=[SEES_CONNECTIONS])
    async def connections(user: User) -> JSONResponse:
        """List the runqy connections that the user may read, and their health."""
        teams = await data.list_connections()
        readable = await asyncio.to_thread(readable_connections, user, teams)
        views = await data.look_at(sorted(readable))
        return JSONResponse({"now": time.time(), "connections": views})

    @app.get("/api/waits", dependencies=[SEES_TASKS])
    async def waits(user: User, query: Annotated[Filter, Query()]) -> JSONResponse:
        """List one page of the waiting tasks of the DAGs that the user may read."""
        dag_ids = await asyncio.to_thread(readable_dags, user)
        listing = await data.list_waits(dag_ids, query)
        return JSONResponse({"now": time.time(), **listing})

    return app


def _add_files(app: FastAPI) -> None:
    index = (STATIC / "index.html").read_text()
    files = {path.name: path for path in STATIC.iterdir() if path.suffix in MEDIA_TYPES}

    @app.get("/")
    def page(user: User) -> HTMLResponse:
        """Return the page."""
        if not may_see_page(user):
            return HTMLResponse(NOT_ALLOWED, 403)
        return HTMLResponse(index)

    @app.get("/{name}")
    def file(_user: User, name: str) -> FileResponse:
        """Return a file of the page."""
        path = files.get(name)
        if path is None:
            raise HTTPException(404)
        return FileResponse(path, media_type=MEDIA_TYPES[path.suffix])


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
