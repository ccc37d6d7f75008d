# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The routes about one task: its status, its detail, delete, cancel."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError
from starlette.responses import JSONResponse

from runqy_sandbox.asynq import lua as transitions
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

#: A long poll looks this often, in seconds, and this many times.
POLL_EVERY, POLLS = 1.0, 30
#: The sorted sets that may hold a task.
SETS = ("scheduled", "retry", "completed", "archived", "lease")


async def status(request: Request) -> Response:
    """Tell a task's state to whoever knows its id; no key is asked for."""
    redis: Redis = request.app.state.redis
    task_id = request.path_params["task_id"]
    waits = request.query_params.get("wait") == "true"
    try:
        queue: Any = await redis.hget(reverse_key(task_id), "queue")
        if queue is None:
            return await _unknown(redis)
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
    """Tell more about a task, to the admin."""
    try:
        task = await read_task(request.app.state.redis, **_path(request))
    except TaskError as error:
        return errors(404, str(error))
    return JSONResponse(task_detail(task))


@admin_only
async def delete(request: Request) -> Response:
    """Delete a task that nobody works on; the reverse look-up stays."""
    redis: Redis = request.app.state.redis
    queue, task_id = _path(request).values()
    if not await redis.sismember(QUEUES, queue):
        return errors(500, "asynq: queue not found")
    keys = [task_key(queue, task_id), key(queue, "pending")]
    keys += [key(queue, part) for part in SETS]
    deleted = await redis.eval(transitions.DELETE, len(keys), *keys, task_id)
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
    """Say yes, and change nothing: runqy's worker does not listen for it."""
    task_id = request.path_params["task_id"]
    return JSONResponse({"message": "task cancelled", "task_id": task_id})


async def _unknown(redis: Redis) -> Response:
    # A flushed Redis knows no queues either, and runqy's answer then is another one.
    if await redis.exists(QUEUES):
        return errors(404, "task not found")
    return errors(500, "asynq: queue not found")


async def _wait(redis: Redis, queue: str, task_id: str) -> Task:
    for _ in range(POLLS):
        await asyncio.sleep(POLL_EVERY)
        task = await read_task(redis, queue, task_id)
        if task.state in {"completed", "archived"}:
            return task
    raise TaskError("timeout waiting for task result")


def _path(request: Request) -> dict[str, str]:
    return {name: request.path_params[name] for name in ("queue", "task_id")}
