# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Enqueue jobs in runqy's own Redis, as the server does.

The caller chooses the id of a job, and a second job with the same id is refused. So an
enqueue can be repeated if it is not known whether it has succeeded, which is not
possible over HTTP.
"""

from __future__ import annotations

import functools
import hashlib
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from redis.exceptions import NoScriptError

from runqy_provider.client.api import MAX_BODY
from runqy_provider.client.models import PENDING, Job
from runqy_provider.client.queues import (
    QUEUES,
    hash_key,
    pending_key,
    read_workers,
    retry_key,
    reverse_key,
)
from runqy_provider.errors import InvalidPayload, PayloadTooLarge
from runqy_provider.redis_client import client, redis_errors

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from redis import Redis

    from runqy_provider.client.models import JobOptions
    from runqy_provider.redis_connection import RedisConnection

#: What the server stores with each job, in seconds.
DEFAULT_TIMEOUT = 1800
RETENTION = 24 * 3600

#: How often the server lets a job that failed be run again.
MAX_RETRY = 3

#: The fields that a new job has: number, name, protobuf type.
_FIELDS = (
    (1, "type", "TYPE_STRING"),
    (2, "payload", "TYPE_BYTES"),
    (3, "id", "TYPE_STRING"),
    (4, "queue", "TYPE_STRING"),
    (5, "retry", "TYPE_INT32"),
    (8, "timeout", "TYPE_INT64"),
    (12, "retention", "TYPE_INT64"),
)

#: How many jobs are deleted in one round trip: each looks through the whole queue.
DELETED_AT_ONCE = 100

#: Writes a payload as the server does: sorted, and without blanks.
_ENCODER = json.JSONEncoder(
    allow_nan=False, ensure_ascii=False, separators=(",", ":"), sort_keys=True
)

#: Characters that the server escapes in a payload, though JSON does not ask for it.
_ESCAPED = {ord(char): f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"}


def task_message(
    job_id: str, runqy_queue: str, payload: bytes, timeout: int, max_retry: int
) -> bytes:
    """Return the message of a new job, as the server writes it.

    Args:
        job_id: The job's id.
        runqy_queue: Full name of the queue.
        payload: The payload as JSON.
        timeout: The job's timeout in seconds.
        max_retry: How often it may be run again.
    """
    message = _message_class()(
        type=runqy_queue,
        payload=payload,
        id=job_id,
        queue=runqy_queue,
        retry=max_retry,
        timeout=timeout,
        retention=RETENTION,
    )
    data: bytes = message.SerializeToString()
    return data


@functools.cache
def _message_class() -> Any:
    """Return the class of the message; its own descriptor pool avoids collisions."""
    file = descriptor_pb2.FileDescriptorProto(
        name="asynq.proto", package="asynq", syntax="proto3"
    )
    message = file.message_type.add(name="TaskMessage")
    for number, name, kind in _FIELDS:
        message.field.add(
            name=name,
            number=number,
            type=getattr(descriptor_pb2.FieldDescriptorProto, kind),
            label=descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL,
        )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(
        pool.FindMessageTypeByName("asynq.TaskMessage")
    )


class _Script:
    """A script in Redis, and the digest by which Redis knows it."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


# The reverse key stays after a job of a queue without storage has ended and its hash is
# deleted: a job that has run is refused, too. It is one script, where the server takes
# three steps, so that others see all of it or nothing.
_ENQUEUE = _Script("""
if redis.call('EXISTS', KEYS[1], KEYS[2]) > 0 then return 0 end
redis.call('SADD', KEYS[4], ARGV[4])
redis.call('HSET', KEYS[1], 'msg', ARGV[1], 'state', 'pending',
           'pending_since', ARGV[3], unpack(ARGV, 5))
redis.call('HSET', KEYS[2], 'queue', ARGV[4])
redis.call('LPUSH', KEYS[3], ARGV[2])
return 1
""")

# Deletes a job that waits for a worker as the server does; an active job stays. The
# reverse key stays, too: a job is never enqueued twice.
_DELETE = _Script("""
local state = redis.call('HGET', KEYS[1], 'state')
if state == 'pending' then redis.call('LREM', KEYS[2], -1, ARGV[1])
elseif state == 'retry' then redis.call('ZREM', KEYS[3], ARGV[1])
else return 0 end
return redis.call('DEL', KEYS[1])
""")


@dataclass(frozen=True)
class NewJob:
    """A job to enqueue.

    Attributes:
        job_id: Its id, which no other job may have.
        payload: What the handler receives; a JSON object.
    """

    job_id: str
    payload: Mapping[str, Any]


class RedisTransport:
    """Enqueues jobs in one Redis; use it as a context manager, or close it.

    Args:
        connection: runqy's own Redis.
    """

    def __init__(self, connection: RedisConnection) -> None:
        self._connection = connection
        self._client: Redis = client(connection)

    def close(self) -> None:
        """Close the connection; a later call opens another."""
        self._client.close()

    def has_queue(self, runqy_queue: str) -> bool:
        """Return whether a queue had a job before, or a live worker serves it.

        Args:
            runqy_queue: Full name of the queue.

        Raises:
            SinkUnavailable: Redis is unavailable.
        """
        with redis_errors(self._connection, "look for a queue"):
            if self._client.sismember(QUEUES, runqy_queue):
                return True
            return runqy_queue in read_workers(self._client)

    def enqueue(
        self, runqy_queue: str, jobs: Sequence[NewJob], options: JobOptions
    ) -> list[bool]:
        """Enqueue jobs in one round trip.

        Args:
            runqy_queue: Full name of the queue.
            jobs: The jobs.
            options: What applies to each of them.

        Returns:
            For each job: True if it was enqueued now, False if a job with its id was
            enqueued before.

        Raises:
            InvalidPayload: The payload of one is not JSON: none was enqueued.
            PayloadTooLarge: One is larger than the server accepts: none was enqueued.
            SinkUnavailable: Redis is unavailable. Some may have been enqueued: repeat
                the call, with the same ids.
            NoAccess: It denies access.
        """
        fields = [each for pair in options.fields().items() for each in pair]
        timeout = DEFAULT_TIMEOUT if options.timeout is None else int(options.timeout)
        retries = MAX_RETRY if options.max_retry is None else options.max_retry
        messages = [
            task_message(
                job.job_id, runqy_queue, _body(job, runqy_queue), timeout, retries
            )
            for job in jobs
        ]
        pending = pending_key(runqy_queue)
        calls = [
            (
                *(hash_key(runqy_queue, job.job_id), reverse_key(job.job_id)),
                *(pending, QUEUES),
                *(message, job.job_id, time.time_ns(), runqy_queue, *fields),
            )
            for job, message in zip(jobs, messages, strict=True)
        ]
        with redis_errors(self._connection, f"enqueue to {runqy_queue!r}"):
            answers = self._run(_ENQUEUE, 4, calls)
        return [answer == 1 for answer in answers]

    def delete_pending(self, runqy_queue: str, job_ids: Sequence[str]) -> int:
        """Delete jobs that wait for a worker.

        Args:
            runqy_queue: Full name of the queue.
            job_ids: Ids of the jobs.

        Returns:
            How many were deleted; the others run, or have ended.

        Raises:
            SinkUnavailable: Redis is unavailable.
            NoAccess: It denies access.
        """
        deleted = 0
        for start in range(0, len(job_ids), DELETED_AT_ONCE):
            calls = [
                (
                    hash_key(runqy_queue, job_id),
                    pending_key(runqy_queue),
                    retry_key(runqy_queue),
                    job_id,
                )
                for job_id in job_ids[start : start + DELETED_AT_ONCE]
            ]
            with redis_errors(self._connection, f"delete jobs of {runqy_queue!r}"):
                deleted += sum(self._run(_DELETE, 3, calls))
        return deleted

    def _run(
        self, script: _Script, keys: int, calls: Sequence[tuple[Any, ...]]
    ) -> list[Any]:
        """Run a script once for each call, in one round trip.

        redis-py's own scripts would ask at each round trip whether Redis has them.

        Args:
            script: The script.
            keys: How many of the arguments of a call are keys.
            calls: The arguments.

        Raises:
            RedisError: A call has failed.
        """
        answers = self._evaluate(script, keys, calls)
        unknown = [
            number
            for number, answer in enumerate(answers)
            if isinstance(answer, NoScriptError)
        ]
        if unknown:
            # Redis has not seen it yet, has been restarted, or has failed over.
            self._client.script_load(script.text)
            again = self._evaluate(script, keys, [calls[n] for n in unknown])
            for number, answer in zip(unknown, again, strict=True):
                answers[number] = answer
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return answers

    def _evaluate(
        self, script: _Script, keys: int, calls: Sequence[tuple[Any, ...]]
    ) -> list[Any]:
        with self._client.pipeline(transaction=False) as pipeline:
            for call in calls:
                pipeline.evalsha(script.sha, keys, *call)
            answers: list[Any] = pipeline.execute(raise_on_error=False)
        return answers


def enqueued_job(runqy_queue: str, job: NewJob) -> Job:
    """Return a job as the server describes one that it has enqueued."""
    return Job(job.job_id, runqy_queue, PENDING, payload=job.payload)


def _body(job: NewJob, runqy_queue: str) -> bytes:
    """Return a payload as the server writes it: sorted, and without blanks."""
    what = f"The payload of job {job.job_id} for queue {runqy_queue!r}"
    try:
        text = _ENCODER.encode(job.payload)
        body = text.translate(_ESCAPED).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidPayload(
            f"{what} is not JSON: {error}. Payloads hold texts, numbers, booleans, "
            "lists and objects."
        ) from error
    if len(body) > MAX_BODY:
        raise PayloadTooLarge(
            f"{what} has {len(body):,} bytes; at most {MAX_BODY:,} are enqueued, as "
            "over HTTP. Put large inputs into an object store and their URI into the "
            "payload."
        )
    return body
