# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The message of a job in runqy's Redis: asynq's ``TaskMessage``, in protobuf."""

from __future__ import annotations

import functools
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

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
