# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""asynq's keys in Redis, and its ``TaskMessage``."""

from __future__ import annotations

import functools
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

#: The set of the names of all queues.
QUEUES = "asynq:queues"
#: The sorted set of the ids of all workers.
WORKERS = "asynq:workers"

#: The timeout of a task that was enqueued without one, in seconds.
DEFAULT_TIMEOUT = 1800
#: How long a completed task is kept, in seconds.
COMPLETED_TTL = 86_400
#: How long an archived task is kept, in seconds.
ARCHIVED_TTL = 259_200
#: How often a failed task is retried.
MAX_RETRY = 3

#: The fields of asynq's ``TaskMessage``: number, name, protobuf type.
FIELDS = (
    (1, "type", "TYPE_STRING"),
    (2, "payload", "TYPE_BYTES"),
    (3, "id", "TYPE_STRING"),
    (4, "queue", "TYPE_STRING"),
    (5, "retry", "TYPE_INT32"),
    (6, "retried", "TYPE_INT32"),
    (7, "error_msg", "TYPE_STRING"),
    (8, "timeout", "TYPE_INT64"),
    (9, "deadline", "TYPE_INT64"),
    (10, "unique_key", "TYPE_STRING"),
    (11, "last_failed_at", "TYPE_INT64"),
    (12, "retention", "TYPE_INT64"),
    (13, "completed_at", "TYPE_INT64"),
    (14, "group_key", "TYPE_STRING"),
)


def key(queue: str, part: str) -> str:
    """Return the key of one part of a queue, such as ``asynq:{queue}:pending``.

    The braces are part of the key.
    """
    return f"asynq:{{{queue}}}:{part}"


def task_key(queue: str, task_id: str) -> str:
    """Return the key of a task's hash."""
    return key(queue, f"t:{task_id}")


def reverse_key(task_id: str) -> str:
    """Return the key of the hash that maps the id of a task to its queue."""
    return f"asynq:t:{task_id}"


def worker_key(worker_id: str) -> str:
    """Return the key of the heartbeat of a worker."""
    return f"asynq:workers:{worker_id}"


def queue_of(queue_key: str) -> str:
    """Return the queue that a key made by ``key`` belongs to."""
    return queue_key[queue_key.index("{") + 1 : queue_key.rindex("}")]


@functools.cache
def task_message_class() -> Any:
    """Return the protobuf class of asynq's ``TaskMessage``."""
    file = descriptor_pb2.FileDescriptorProto(
        name="asynq.proto", package="asynq", syntax="proto3"
    )
    message = file.message_type.add(name="TaskMessage")
    for number, name, kind in FIELDS:
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


def decode(data: bytes) -> Any:
    """Read a ``TaskMessage``, as it is in the field ``msg`` of a task's hash."""
    return task_message_class().FromString(data)


def new_message(
    task_id: str,
    queue: str,
    payload: bytes,
    *,
    timeout: int = 0,
    max_retry: int = MAX_RETRY,
) -> Any:
    """Return the ``TaskMessage`` of a new task.

    Args:
        task_id: The id of the task.
        queue: The name of its queue.
        payload: The payload.
        timeout: The timeout in seconds; 0 stands for ``DEFAULT_TIMEOUT``.
        max_retry: How often the task is retried when it fails.
    """
    return task_message_class()(
        type=queue,
        payload=payload,
        id=task_id,
        queue=queue,
        retry=max_retry,
        timeout=timeout or DEFAULT_TIMEOUT,
        retention=COMPLETED_TTL,
    )
