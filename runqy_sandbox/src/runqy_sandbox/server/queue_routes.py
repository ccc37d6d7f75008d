# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The routes for queues and workers."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from starlette.responses import JSONResponse

from runqy_sandbox.asynq.keys import QUEUES, key, task_key, worker_key
from runqy_sandbox.queues import Queues, normalize
from runqy_sandbox.server.auth import admin_only, errors, requires

if TYPE_CHECKING:
    from redis.asyncio import Redis
    from starlette.requests import Request
    from starlette.responses import Response

    from runqy_sandbox.settings import ServerSettings

#: A worker whose last heartbeat is older is stale, in seconds.
STALE_AFTER = 30
#: How many tasks are measured to estimate the memory usage of all.
SAMPLE_SIZE = 20
#: The states that asynq keeps in sorted sets.
SORTED_SETS = ("scheduled", "retry", "archived", "completed")


@admin_only
async def list_queues(request: Request) -> Response:
    """List all queues; like runqy, register the configured ones with asynq."""
    redis: Redis = request.app.state.redis
    queues: Queues = request.app.state.queues
    if names := [sub.name for sub in queues.sub_queues]:
        await redis.sadd(QUEUES, *names)
    known: Any = await redis.smembers(QUEUES)
    names = [name.decode() for name in known]
    return JSONResponse({"queues": [await _queue_info(redis, name) for name in names]})


@admin_only
async def show_queue(request: Request) -> Response:
    """Return the counts of one queue."""
    redis: Redis = request.app.state.redis
    queue = request.path_params["queue"]
    if not await redis.sismember(QUEUES, queue):
        return errors(404, f'NOT_FOUND: queue "{queue}" does not exist')
    return JSONResponse(await _queue_info(redis, queue))


@admin_only
async def pause(request: Request) -> Response:
    """Mark a queue as paused; like runqy's, the worker ignores the mark."""
    queue = request.path_params["queue"]
    paused = key(queue, "paused")
    if not await request.app.state.redis.set(paused, int(time.time()), nx=True):
        message = f'FAILED_PRECONDITION: queue "{queue}" is already paused'
        return errors(500, message)
    return JSONResponse({"message": "queue paused", "queue": queue})


@admin_only
async def unpause(request: Request) -> Response:
    """Remove the mark of a paused queue."""
    queue = request.path_params["queue"]
    if not await request.app.state.redis.delete(key(queue, "paused")):
        message = f'FAILED_PRECONDITION: queue "{queue}" is not paused'
        return errors(500, message)
    return JSONResponse({"message": "queue unpaused", "queue": queue})


@requires("admin")
async def configured_queues(request: Request) -> Response:
    """List the configured queues."""
    queues: Queues = request.app.state.queues
    found = [{"name": s.name, "priority": s.priority} for s in queues.sub_queues]
    return JSONResponse({"queues": found, "count": len(found)})


@requires("admin")
async def list_workers(request: Request) -> Response:
    """List the workers that have a heartbeat in Redis."""
    redis: Redis = request.app.state.redis
    workers = []
    async for name in redis.scan_iter(match=worker_key("*")):
        beat: Any = await redis.hgetall(name)
        workers.append(_worker_info(name.decode().removeprefix(worker_key("")), beat))
    return JSONResponse({"workers": workers, "count": len(workers)})


@requires("worker")
async def register_worker(request: Request) -> Response:
    """Return the settings that a worker needs to serve a queue."""
    settings: ServerSettings = request.app.state.settings
    queues: Queues = request.app.state.queues
    try:
        name = json.loads(await request.body())["queue"]
    except (ValueError, KeyError, TypeError):
        return JSONResponse({"error": "queue name is required"}, 400)
    queue = next((q for q in queues.queues if q.name == name), None)
    queue = queue or queues.find(normalize(str(name)))
    if queue is None:
        return JSONResponse({"error": f"queue '{name}' not found"}, 404)
    subs = [{"name": s.name, "priority": s.priority} for s in queue.sub_queues]
    redis = urlsplit(settings.redis_url)
    return JSONResponse(
        {
            "redis": {"addr": redis.netloc, "password": "", "use_tls": False, "db": 0},
            "queue": {"name": name, "priority": queue.sub_queues[0].priority},
            "sub_queues": subs,
            "deployment": {
                "git_url": queue.git_url,
                "branch": queue.branch,
                "startup_cmd": queue.startup_cmd,
                "startup_timeout_secs": int(queue.startup_timeout),
                "redis_storage": queue.redis_storage,
            },
        }
    )


async def _queue_info(redis: Redis, queue: str) -> dict[str, Any]:
    async with redis.pipeline(transaction=True) as pipe:
        pipe.llen(key(queue, "pending"))
        pipe.llen(key(queue, "active"))
        for part in SORTED_SETS:
            pipe.zcard(key(queue, part))
        pipe.exists(key(queue, "paused"))
        pending, active, *counts, paused = await pipe.execute()
    return {
        "queue": queue,
        "pending": pending,
        "active": active,
        **dict(zip(SORTED_SETS, counts, strict=True)),
        "paused": bool(paused),
        "memory_usage": await _memory(redis, queue),
    }


async def _memory(redis: Redis, queue: str) -> int:
    """Estimate the memory usage of a queue from its first tasks, as asynq does."""
    total = 0
    for part in ("pending", "active", *SORTED_SETS):
        name = key(queue, part)
        own: Any = await redis.memory_usage(name)
        if own is None:
            continue
        listed = part in {"pending", "active"}
        read: Any = redis.lrange if listed else redis.zrange
        ids = await read(name, 0, SAMPLE_SIZE - 1)
        sizes: list[Any] = [
            await redis.memory_usage(task_key(queue, task_id.decode()))
            for task_id in ids
        ]
        length: Any = await (redis.llen(name) if listed else redis.zcard(name))
        total += own + sum(size or 0 for size in sizes) * length // len(ids)
    return total


def _worker_info(name: str, beat: dict[bytes, bytes]) -> dict[str, Any]:
    last_beat = int(beat.get(b"last_beat", 0))
    return {
        "worker_id": name,
        # runqy-worker does not write it, and the server then shows a zero.
        "started_at": 0,
        "last_beat": last_beat,
        "concurrency": int(beat.get(b"concurrency", 0)),
        "queues": beat.get(b"queues", b"").decode(),
        "status": beat.get(b"status", b"").decode(),
        "is_stale": time.time() - last_beat > STALE_AFTER,
    }
