# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""One job in a worker's hands: how it is taken, and the ways it can end."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError

from runqy_sandbox.asynq import lua as transitions
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

#: Fields of the message that runqy-worker forgets when it writes a retry.
FORGOTTEN = ("timeout", "retention", "deadline", "last_failed_at", "error_msg")

#: The states that are kept: the counter they count in, and for how many seconds.
KEPT = {"completed": ("processed", COMPLETED_TTL), "archived": ("failed", ARCHIVED_TTL)}


@dataclass(frozen=True)
class Job:
    """A task in the state `active`, as its worker sees it."""

    id: str
    queue: str
    message: Any
    retried: int

    @property
    def may_retry(self) -> bool:
        """Whether another attempt is left."""
        return self.retried < int(self.message.retry)


async def take(redis: Redis, queue: str, job_id: str, lease_end: float) -> Job | None:
    """Make a job active; nothing if there is no message to read."""
    keys = [task_key(queue, job_id), key(queue, "active"), key(queue, "lease")]
    found = await _run(redis, transitions.ACTIVATE, keys, job_id, lease_end)
    return None if found is None else _job(queue, job_id, *found)


async def find(redis: Redis, queue: str, job_id: str) -> Job | None:
    """Read a job that another worker took; nothing if its message is gone."""
    found: Any = await redis.hmget(task_key(queue, job_id), ["msg", "retried"])
    return _job(queue, job_id, *found)


async def complete(redis: Redis, job: Job, result: str | None, *, store: bool) -> None:
    """End a job whose handler returned: kept with its result, or deleted."""
    if not store:
        await _forget(redis, job, "processed")
        return
    now = int(time.time())
    message = task_message_class()()
    message.CopyFrom(job.message)
    message.completed_at = now
    fields: list[Any] = ["msg", message.SerializeToString(), "completed_at", now]
    if result is not None:
        fields += ["result", result]
    await _keep(redis, job, "completed", fields)


async def fail(
    redis: Redis, job: Job, error: str, *, store: bool, retry_unit: float
) -> None:
    """End an attempt whose handler raised: again later, archived, or deleted."""
    if job.may_retry:
        await _retry(redis, job, retry_unit)
    elif store:
        fields = ["error_msg", error, "last_failed_at", int(time.time())]
        await _keep(redis, job, "archived", fields)
    else:
        await _forget(redis, job, "failed")


async def give_back(redis: Redis, job: Job) -> None:
    """Put a job back at the head of its queue: this worker is going home."""
    keys = [*_active_keys(job), key(job.queue, "pending")]
    await _run(redis, transitions.GIVE_BACK, keys, job.id, time.time_ns())


def later(seconds: float) -> float:
    """Return the score of a moment from now.

    runqy writes whole seconds; the shorter delays of tests need the fraction.
    """
    moment = time.time() + seconds
    return moment if seconds < 1 else int(moment)


async def _retry(redis: Redis, job: Job, retry_unit: float) -> None:
    attempt = job.retried + 1
    message = task_message_class()()
    message.CopyFrom(job.message)
    for field in FORGOTTEN:
        message.ClearField(field)
    message.retried = attempt
    await _run(
        redis,
        transitions.RETRY,
        [*_active_keys(job), key(job.queue, "retry")],
        job.id,
        message.SerializeToString(),
        int(time.time()),
        later(retry_unit * attempt**4),
    )


async def _forget(redis: Redis, job: Job, counter: str) -> None:
    keys = [*_active_keys(job), *_counter_keys(job.queue, counter)]
    await _run(redis, transitions.FORGET, keys, job.id)


async def _keep(redis: Redis, job: Job, state: str, fields: list[Any]) -> None:
    counter, ttl = KEPT[state]
    keys = [
        *_active_keys(job),
        *_counter_keys(job.queue, counter),
        key(job.queue, state),
        reverse_key(job.id),
    ]
    now = int(time.time())
    await _run(redis, transitions.KEEP, keys, job.id, state, now, ttl, *fields)


def _job(
    queue: str, job_id: str, msg: bytes | None, retried: bytes | None
) -> Job | None:
    if msg is None:
        return None
    try:
        message = decode(msg)
    except DecodeError:
        return None
    # The hash and the message both count; the larger count is the later one.
    return Job(job_id, queue, message, max(int(retried or 0), message.retried))


def _active_keys(job: Job) -> list[str]:
    return [
        task_key(job.queue, job.id),
        key(job.queue, "active"),
        key(job.queue, "lease"),
    ]


def _counter_keys(queue: str, counter: str) -> list[str]:
    day = datetime.now(UTC).date().isoformat()
    return [key(queue, counter), key(queue, f"{counter}:{day}")]


async def _run(redis: Redis, script: str, keys: list[str], *arguments: Any) -> Any:
    # Not EVALSHA: a restarted Redis would not know the script.
    return await redis.eval(script, len(keys), *keys, *arguments)
