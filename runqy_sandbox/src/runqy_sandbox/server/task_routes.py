# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The routes for one task: status, detail, delete, cancel."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError
from starlette.responses import JSONResponse

from runqy_sandbox.asynq import lua
from runqy_sandbox.asynq.keys import QUEUES, key, reverse_key, task_key
from runqy_sandbox.server.auth import admin_only, errors
from runqy_sandbox.server.task_info import (
    Task,
    TaskError,
    read_task,
    task_detail,
    task_info,
)

if TYPE_CHECKING:
    from redis.asyncio import Redis
    from starlette.requests import Request
    from starlette.responses import Response

#: A long poll reads the task at this interval, in seconds.
POLL_INTERVAL = 1.0
#: How often a long poll reads the task.
MAX_POLLS = 30
#: The sorted sets that a task may be in.
SORTED_SETS = ("scheduled", "retry", "completed", "archived", "lease")


async def status(request: Request) -> Response:
    """Return the status of a task; as in runqy, no API key is needed."""
    redis: Redis = request.app.state.redis
    task_id = request.path_params["task_id"]
    waits = request.query_params.get("wait") == "true"
    try:
        queue: Any = await redis.hget(reverse_key(task_id), "queue")
        if queue is None:
            return await _task_not_found(redis)
        if waits:
            task = await _wait(redis, queue.decode(), task_id)
        else:
            task = await read_task(redis, queue.decode(), task_id)
    except TaskError as error:
        return errors(408 if waits else 500, str(error))
    except RedisError as error:
        return errors(500, str(error))
    return JSONResponse({"Info": task_info(task)})


@admin_only
async def detail(request: Request) -> Response:
    """Return the details of a task."""
    try:
        task = await read_task(request.app.state.redis, **_path(request))
    except TaskError as error:
        return errors(404, str(error))
    return JSONResponse(task_detail(task))


@admin_only
async def delete(request: Request) -> Response:
    """Delete a task that is not active; as in runqy, its reverse key stays."""
    redis: Redis = request.app.state.redis
    queue, task_id = _path(request).values()
    if not await redis.sismember(QUEUES, queue):
        return errors(500, "asynq: queue not found")
    keys = [task_key(queue, task_id), key(queue, "pending")]
    keys += [key(queue, part) for part in SORTED_SETS]
    deleted = await redis.eval(lua.DELETE, len(keys), *keys, task_id)
    if deleted == -1:
        return errors(500, "asynq: task not found")
    if deleted == 0:
        return errors(
            500,
            "asynq: FAILED_PRECONDITION: cannot delete task in active state. "
            "use CancelProcessing instead.",
        )
    return JSONResponse({"message": "task deleted", "task_id": task_id})


@admin_only
async def cancel(request: Request) -> Response:
    """Report success without an effect: runqy's worker ignores the request."""
    task_id = request.path_params["task_id"]
    return JSONResponse({"message": "task cancelled", "task_id": task_id})


async def _task_not_found(redis: Redis) -> Response:
    # After a flush of Redis no queue is registered, and runqy reports that instead.
    if await redis.exists(QUEUES):
        return errors(404, "task not found")
    return errors(500, "asynq: queue not found")


async def _wait(redis: Redis, queue: str, task_id: str) -> Task:
    for _ in range(MAX_POLLS):
        await asyncio.sleep(POLL_INTERVAL)
        task = await read_task(redis, queue, task_id)
        if task.state in {"completed", "archived"}:
            return task
    raise TaskError("timeout waiting for task result")


def _path(request: Request) -> dict[str, str]:
    return {name: request.path_params[name] for name in ("queue", "task_id")}
