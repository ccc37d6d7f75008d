# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Tasks in Redis, and the JSON in which runqy's API describes them."""

from __future__ import annotations

import base64
import binascii
import contextlib
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from runqy_sandbox.asynq.keys import QUEUES, decode, key, task_key

if TYPE_CHECKING:
    from redis.asyncio import Redis

#: Go's zero time, which stands for no time.
ZERO_TIME = "0001-01-01T00:00:00Z"


class TaskError(Exception):
    """The task cannot be returned; the message is asynq's or runqy's."""


@dataclass(frozen=True)
class Task:
    """A task as it is stored in Redis."""

    state: str
    message: Any
    result: bytes
    next_process_at: datetime | None


async def read_task(redis: Redis, queue: str, task_id: str) -> Task:
    """Read a task.

    Raises:
        TaskError: The queue or the task is not in Redis.
    """
    if not await redis.sismember(QUEUES, queue):
        raise TaskError("asynq: queue not found")
    found: Any = await redis.hmget(task_key(queue, task_id), ["state", "msg", "result"])
    state, msg, result = found
    if state is None or msg is None:
        raise TaskError("asynq: task not found")
    state = state.decode()
    due = datetime.now(timezone.utc) if state == "pending" else None
    if state == "retry":
        score = await redis.zscore(key(queue, "retry"), task_id)
        due = datetime.fromtimestamp(score or 0, timezone.utc)
    return Task(state, decode(msg), result or b"", due)


def task_info(task: Task) -> dict[str, Any]:
    """Return the ``Info`` in the response to ``GET /queue/{id}``."""
    return {
        **_info(task.message, task.state, task.next_process_at),
        "payload": _text(task.message.payload),
        "Result": _text(task.result),
    }


def new_task_info(message: Any) -> dict[str, Any]:
    """Return the ``info`` in the response to ``POST /queue/add``.

    The payload and the result are left empty.
    """
    return _info(message, "pending", datetime.now(timezone.utc))


def task_detail(task: Task) -> dict[str, Any]:
    """Return the response to ``GET /api/queues/{queue}/tasks/{id}``."""
    message = task.message
    completed = datetime.fromtimestamp(message.completed_at, timezone.utc)
    return {
        "id": message.id,
        "type": message.type,
        "queue": message.queue,
        "state": task.state,
        "payload": message.payload.decode("utf-8", "replace"),
        "max_retry": message.retry,
        "retried": message.retried,
        "timeout": _duration(message.timeout),
        **(
            {"next_process_at": _date_and_time(task.next_process_at)}
            if task.next_process_at
            else {}
        ),
        **({"completed_at": _date_and_time(completed)} if message.completed_at else {}),
        **({"result": task.result.decode("utf-8", "replace")} if task.result else {}),
    }


def rfc3339(time: datetime) -> str:
    """Format a time as Go's JSON does."""
    return time.isoformat().replace("+00:00", "Z")


def _info(message: Any, state: str, due: datetime | None) -> dict[str, Any]:
    # The order and the mixed case are runqy's.
    return {
        "id": message.id,
        "type": message.type,
        "payload": "",
        "state": state,
        "queue": message.queue,
        "max_retry": message.retry,
        "retried": message.retried,
        "LastErr": message.error_msg,
        "LastFailedAt": _rfc3339_or_zero(message.last_failed_at),
        "Deadline": _rfc3339_or_zero(message.deadline),
        "Group": message.group_key,
        "NextProcessAt": rfc3339(due) if due else ZERO_TIME,
        "IsOrphaned": False,
        "CompletedAt": _rfc3339_or_zero(message.completed_at),
        "Result": "",
    }


def _rfc3339_or_zero(seconds: int) -> str:
    return (
        rfc3339(datetime.fromtimestamp(seconds, timezone.utc)) if seconds else ZERO_TIME
    )


def _date_and_time(time: datetime) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S")


def _text(data: bytes) -> str:
    """Decode bytes as runqy does, which takes all valid base64 for base64.

    JSON rarely is valid base64, but ``null``, ``true`` and numbers of four digits are.
    """
    with contextlib.suppress(binascii.Error):
        data = base64.b64decode(data, validate=True)
    return data.decode("utf-8", "replace")


def _duration(seconds: int) -> str:
    """Format a duration as Go does, such as 5m0s."""
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m{seconds}s"
    return f"{minutes}m{seconds}s" if minutes else f"{seconds}s"
