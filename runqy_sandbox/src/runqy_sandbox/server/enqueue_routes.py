# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The routes that enqueue jobs: ``POST /queue/add`` and ``POST /queue/add-batch``."""

from __future__ import annotations

import base64
import json
import time
import uuid
from typing import TYPE_CHECKING

from redis.exceptions import RedisError
from starlette.responses import JSONResponse

from runqy_sandbox.asynq import lua
from runqy_sandbox.asynq.keys import QUEUES, key, new_message, reverse_key, task_key
from runqy_sandbox.queues import Queue, Queues, normalize
from runqy_sandbox.server import go_json
from runqy_sandbox.server.auth import errors, requires
from runqy_sandbox.server.go_json import GoJSONError, T
from runqy_sandbox.server.schema import SchemaError, apply_schema
from runqy_sandbox.server.task_info import new_task_info

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis.asyncio import Redis
    from starlette.requests import Request
    from starlette.responses import Response

#: The largest request body that runqy accepts, in bytes.
MAX_BODY = 50 * 1024 * 1024
#: How many jobs of a batch are sent to Redis in one round trip.
CHUNK_SIZE = 100


class _NotFound(Exception):
    """The queue is not configured."""


@requires("client")
async def add(request: Request) -> Response:
    """Enqueue one job."""
    try:
        members = go_json.raw_members(_object(await _body(request)))
        name = _field("queue", str, members)
        if not name:
            return errors(400, "queue is required")
        name, queue = _find(request, name)
        timeout = _field("timeout", int, members)
        data = members.get("data") or _flat(members)
        payload = _payload(data, queue)
    except _NotFound as error:
        return errors(404, str(error))
    except (GoJSONError, SchemaError) as error:
        return errors(400, str(error))
    try:
        [task_id] = await _enqueue(request.app.state.redis, name, timeout, [payload])
    except RedisError as error:
        # As runqy does: it blames the request.
        return errors(400, str(error))
    info = new_task_info(new_message(task_id, name, payload, timeout=timeout))
    info["payload"] = base64.b64encode(payload).decode()
    info["Result"] = None
    return JSONResponse({"info": info, "data": json.loads(data)})


@requires("client")
async def add_batch(request: Request) -> Response:
    """Enqueue a list of payloads; like runqy, without a check of the input schema."""
    try:
        members = go_json.raw_members(_object(await _body(request)))
        name = _field("queue", str, members)
        timeout = _field("timeout", int, members)
        jobs = _jobs(members.get("jobs"))
        if not name or jobs is None:
            return errors(400, "queue and jobs are required")
        if not jobs:
            return errors(400, "jobs array cannot be empty")
        name, _ = _find(request, name)
    except _NotFound as error:
        return errors(404, str(error))
    except GoJSONError as error:
        return errors(400, str(error))
    ids: list[str] = []
    failures: list[str] = []
    payloads = [job.encode() for job in jobs]
    for start in range(0, len(payloads), CHUNK_SIZE):
        chunk = payloads[start : start + CHUNK_SIZE]
        try:
            ids += await _enqueue(request.app.state.redis, name, timeout, chunk)
        except RedisError as error:
            failures += [str(error)] * len(chunk)
    body = {"enqueued": len(ids), "failed": len(failures), "task_ids": ids}
    return JSONResponse({**body, "errors": failures} if failures else body)


async def _enqueue(
    redis: Redis, queue: str, job_timeout: int, payloads: Sequence[bytes]
) -> list[str]:
    """Enqueue payloads and return the ids of their tasks."""
    ids = [str(uuid.uuid4()) for _ in payloads]
    async with redis.pipeline(transaction=False) as pipe:
        for task_id, payload in zip(ids, payloads, strict=True):
            message = new_message(task_id, queue, payload, timeout=job_timeout)
            keys = [
                QUEUES,
                task_key(queue, task_id),
                reverse_key(task_id),
                key(queue, "pending"),
            ]
            msg = message.SerializeToString()
            arguments = (queue, task_id, msg, time.time_ns())
            pipe.eval(lua.ENQUEUE, len(keys), *keys, *arguments)
        await pipe.execute()
    return ids


async def _body(request: Request) -> bytes:
    """Read the body of a request, up to the largest size that runqy accepts."""
    parts = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > MAX_BODY:
            raise GoJSONError("http: request body too large")
        parts.append(part)
    return b"".join(parts)


def _object(body: bytes) -> str:
    """Return the text of the JSON object in a body."""
    text = go_json.first_value(body)
    if not text.startswith("{"):
        raise GoJSONError(f"json: cannot unmarshal {go_json.kind(json.loads(text))}")
    return text


def _field(name: str, kind: type[T], members: dict[str, str]) -> T:
    """Read one member of a request; an error names it."""
    try:
        return go_json.as_type(members.get(name), kind)
    except GoJSONError as error:
        raise GoJSONError(f"invalid {name} field: {error}") from error


def _find(request: Request, name: str) -> tuple[str, Queue]:
    """Return the full name and the parent of the sub-queue that a name stands for."""
    queues: Queues = request.app.state.queues
    name = normalize(name)
    queue = queues.find(name)
    if queue is None:
        raise _NotFound(f"queue not found: {name}")
    return name, queue


def _flat(members: dict[str, str]) -> str:
    """Return the payload of a request without ``data``: all of its other members."""
    rest = sorted(members.keys() - {"queue", "timeout"})
    return "{" + ",".join(f"{go_json.encode(k)}:{members[k]}" for k in rest) + "}"


def _payload(data: str, queue: Queue) -> bytes:
    """Return the bytes of a payload: Go encodes an object again, and keeps the rest."""
    value = go_json.decode(data)
    is_map = value is None or isinstance(value, dict)
    if queue.fields:
        if not is_map:
            raise GoJSONError(
                f"invalid data payload: json: cannot unmarshal {go_json.kind(value)}"
            )
        value = apply_schema(value or {}, queue.fields)
    return (go_json.encode(value) if is_map else data).encode()


def _jobs(text: str | None) -> list[str] | None:
    """Return the texts of the payloads in the member ``jobs`` of a batch."""
    if text is None or text == "null":
        return None
    if not text.startswith("["):
        found = go_json.kind(json.loads(text))
        raise GoJSONError(f"json: cannot unmarshal {found} into a list of jobs")
    return go_json.raw_elements(text)
