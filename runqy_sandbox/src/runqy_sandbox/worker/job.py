# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""An active job, and the state transitions in which a worker takes and ends it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError

from runqy_sandbox.asynq import lua
from runqy_sandbox.asynq.keys import (
    ARCHIVED_TTL,
    COMPLETED_TTL,
    decode,
    key,
    reverse_key,
    task_key,
    task_message_class,
)

if TYPE_CHECKING:
    from redis.asyncio import Redis

#: The fields of the message that runqy-worker drops when it writes a retry.
DROPPED_ON_RETRY = ("timeout", "retention", "deadline", "last_failed_at", "error_msg")

#: The final states in which a job is kept, each with its counter and its TTL in
#: seconds.
FINAL_STATES = {
    "completed": ("processed", COMPLETED_TTL),
    "archived": ("failed", ARCHIVED_TTL),
}


@dataclass(frozen=True)
class Job:
    """A job in the state ``active``.

    Attributes:
        id: The id of the job.
        queue: The name of its sub-queue.
        message: Its ``TaskMessage``.
        retried: How often it has been retried.
    """

    id: str
    queue: str
    message: Any
    retried: int

    @property
    def may_retry(self) -> bool:
        """Whether the job is retried if this attempt fails."""
        return self.retried < int(self.message.retry)


async def take(redis: Redis, queue: str, job_id: str, lease_end: float) -> Job | None:
    """Make a job active; return None if its message is missing or not readable."""
    keys = [task_key(queue, job_id), key(queue, "active"), key(queue, "lease")]
    found = await _run(redis, lua.ACTIVATE, keys, job_id, lease_end)
    return None if found is None else _job(queue, job_id, *found)


async def find(redis: Redis, queue: str, job_id: str) -> Job | None:
    """Read an active job; return None if its message is missing or not readable."""
    found: Any = await redis.hmget(task_key(queue, job_id), ["msg", "retried"])
    return _job(queue, job_id, *found)


async def complete(redis: Redis, job: Job, result: str, *, store: bool) -> None:
    """Complete a job whose handler returned.

    Args:
        redis: The client to write with.
        job: The job.
        result: The JSON text of the result.
        store: Whether to keep the job with its result; otherwise it is deleted.
    """
    if not store:
        await _delete(redis, job, "processed")
        return
    now = int(time.time())
    message = task_message_class()()
    message.CopyFrom(job.message)
    message.completed_at = now
    msg = message.SerializeToString()
    fields = ["msg", msg, "completed_at", now, "result", result]
    await _finish(redis, job, "completed", fields)


async def fail(
    redis: Redis, job: Job, error: str, *, store: bool, retry_unit: float
) -> None:
    """Schedule a retry of a job that failed; after the last retry, end it.

    Args:
        redis: The client to write with.
        job: The job.
        error: The error message.
        store: Whether to archive the job at the end; otherwise it is deleted.
        retry_unit: Retry n comes after this many seconds times n⁴.
    """
    if job.may_retry:
        await _retry(redis, job, retry_unit)
    elif store:
        fields = ["error_msg", error, "last_failed_at", int(time.time())]
        await _finish(redis, job, "archived", fields)
    else:
        await _delete(redis, job, "failed")


async def requeue(redis: Redis, job: Job) -> None:
    """Put a job back at the head of its queue, because this worker stops."""
    keys = [*_active_keys(job), key(job.queue, "pending")]
    await _run(redis, lua.REQUEUE, keys, job.id, time.time_ns())


def due_time(delay: float) -> float:
    """Return the time after a delay, as a score for a sorted set.

    runqy writes whole seconds; a delay of less than a second, as tests use it, needs
    the fraction.
    """
    due = time.time() + delay
    return due if delay < 1 else int(due)


async def _retry(redis: Redis, job: Job, retry_unit: float) -> None:
    attempt = job.retried + 1
    message = task_message_class()()
    message.CopyFrom(job.message)
    for field in DROPPED_ON_RETRY:
        message.ClearField(field)
    message.retried = attempt
    await _run(
        redis,
        lua.RETRY,
        [*_active_keys(job), key(job.queue, "retry")],
        job.id,
        message.SerializeToString(),
        int(time.time()),
        due_time(retry_unit * attempt**4),
    )


async def _delete(redis: Redis, job: Job, counter: str) -> None:
    keys = [*_active_keys(job), *_counter_keys(job.queue, counter)]
    await _run(redis, lua.DELETE_ACTIVE, keys, job.id)


async def _finish(redis: Redis, job: Job, state: str, fields: list[Any]) -> None:
    counter, ttl = FINAL_STATES[state]
    keys = [
        *_active_keys(job),
        *_counter_keys(job.queue, counter),
        key(job.queue, state),
        reverse_key(job.id),
    ]
    now = int(time.time())
    await _run(redis, lua.FINISH, keys, job.id, state, now, ttl, *fields)


def _job(
    queue: str, job_id: str, msg: bytes | None, retried: bytes | None
) -> Job | None:
    if msg is None:
        return None
    try:
        message = decode(msg)
    except DecodeError:
        return None
    # Both the hash and the message count retries; the larger count is the newer one.
    return Job(job_id, queue, message, max(int(retried or 0), message.retried))


def _active_keys(job: Job) -> list[str]:
    return [
        task_key(job.queue, job.id),
        key(job.queue, "active"),
        key(job.queue, "lease"),
    ]


def _counter_keys(queue: str, counter: str) -> list[str]:
    day = datetime.now(timezone.utc).date().isoformat()
    return [key(queue, counter), key(queue, f"{counter}:{day}")]


async def _run(redis: Redis, script: str, keys: list[str], *arguments: Any) -> Any:
    # Not EVALSHA: Redis forgets scripts when it is restarted.
    return await redis.eval(script, len(keys), *keys, *arguments)
