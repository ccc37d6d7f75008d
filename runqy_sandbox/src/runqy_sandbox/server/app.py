# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The stand-in for the runqy server: ``python -m runqy_sandbox.server.app``."""

from __future__ import annotations

import contextlib
from datetime import datetime, timezone
from typing import TYPE_CHECKING

import uvicorn
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route

from runqy_sandbox.queues import parse_queues
from runqy_sandbox.server import enqueue_routes, queue_routes, task_routes
from runqy_sandbox.server.auth import errors
from runqy_sandbox.server.task_info import rfc3339
from runqy_sandbox.settings import ServerSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request
    from starlette.responses import Response

TASK = "/api/queues/{queue}/tasks/{task_id}"
ROUTES = (
    ("GET", "/queue/{task_id}", task_routes.status),
    ("POST", "/queue/add", enqueue_routes.add),
    ("POST", "/queue/add-batch", enqueue_routes.add_batch),
    ("GET", TASK, task_routes.detail),
    ("DELETE", TASK, task_routes.delete),
    ("POST", "/api/tasks/{task_id}/cancel", task_routes.cancel),
    ("GET", "/api/queues", queue_routes.list_queues),
    ("GET", "/api/queues/{queue}", queue_routes.show_queue),
    ("POST", "/api/queues/{queue}/pause", queue_routes.pause),
    ("POST", "/api/queues/{queue}/unpause", queue_routes.unpause),
    ("GET", "/workers", queue_routes.list_workers),
    ("GET", "/workers/queues", queue_routes.configured_queues),
    ("POST", "/worker/register", queue_routes.register_worker),
)


def create_app(settings: ServerSettings) -> Starlette:
    """Return the server as an ASGI application."""

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        # One immediate retry: a restart of Redis breaks the connections in the pool.
        retry = Retry(NoBackoff(), 1)
        redis = Redis.from_url(
            settings.redis_url, retry=retry, socket_connect_timeout=1
        )
        async with redis:
            app.state.redis = redis
            yield

    app = Starlette(
        routes=[
            Route("/health", health),
            Route("/healthz", healthz),
            *(Route(path, call, methods=[method]) for method, path, call in ROUTES),
        ],
        lifespan=lifespan,
        exception_handlers={
            404: _page_not_found,
            405: _page_not_found,
            RedisError: _redis_error,
        },
    )
    app.state.settings = settings
    app.state.queues = parse_queues(settings.queues)
    return app


async def health(_: Request) -> Response:
    """Report that the server responds."""
    return JSONResponse(
        {"status": "ok", "timestamp": rfc3339(datetime.now(timezone.utc))}
    )


async def healthz(request: Request) -> Response:
    """Report whether Redis responds, too."""
    try:
        responds = bool(await request.app.state.redis.ping())
    except RedisError:
        responds = False
    body = {
        "redis": responds,
        "status": "ok" if responds else "degraded",
        "timestamp": rfc3339(datetime.now(timezone.utc)),
    }
    return JSONResponse(body, 200 if responds else 503)


async def _page_not_found(_: Request, __: Exception) -> Response:
    return PlainTextResponse("404 page not found", 404)


async def _redis_error(_: Request, error: Exception) -> Response:
    return errors(500, str(error))


def main() -> None:
    """Run the server with the settings from the environment."""
    settings = ServerSettings.from_environment()
    uvicorn.run(
        create_app(settings),
        host="127.0.0.1",
        port=settings.port,
        log_level="warning",
        access_log=False,
        # Without it, a long poll would delay the end by up to half a minute.
        timeout_graceful_shutdown=1,
    )


if __name__ == "__main__":
    main()
