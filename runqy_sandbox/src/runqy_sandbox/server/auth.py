# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Authorization: each of three API keys has a role, as in runqy."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from starlette.responses import JSONResponse

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request
    from starlette.responses import Response

    from runqy_sandbox.settings import ServerSettings

    Endpoint = Callable[[Request], Awaitable[Response]]


def errors(status: int, *texts: str) -> JSONResponse:
    """Return an error response in runqy's format."""
    return JSONResponse({"errors": list(texts)}, status)


def requires(role: str) -> Callable[[Endpoint], Endpoint]:
    """Allow only the admin and one role; other requests get 401 or 403."""

    def decorate(endpoint: Endpoint) -> Endpoint:
        async def authorized(request: Request) -> Response:
            granted = _role(request)
            if granted is None:
                return errors(401, "access unauthorized")
            if granted not in {"admin", role}:
                return errors(403, "insufficient permissions")
            return await endpoint(request)

        return authorized

    return decorate


def admin_only(endpoint: Endpoint) -> Endpoint:
    """Allow only the admin; other requests get 401, as runqy's ``/api`` routes do."""

    async def authorized(request: Request) -> Response:
        if _role(request) != "admin":
            return errors(401, "access unauthorized")
        return await endpoint(request)

    return authorized


def _role(request: Request) -> str | None:
    settings: ServerSettings = request.app.state.settings
    given = _key(request).encode()
    roles = {
        "admin": settings.admin_key,
        "client": settings.client_key,
        "worker": settings.worker_key,
    }
    for role, key in roles.items():
        if secrets.compare_digest(given, key.encode()):
            return role
    return None


def _key(request: Request) -> str:
    authorization = request.headers.get("authorization", "")
    if authorization.startswith("Bearer "):
        return authorization.removeprefix("Bearer ")
    return request.headers.get("x-api-key", "")
