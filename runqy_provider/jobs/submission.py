# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Enqueue a job together with the request to deliver its result."""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from typing import TYPE_CHECKING, Any

from runqy_provider.errors import Misconfigured
from runqy_provider.inbox.callback_url import DELIVERY_ID
from runqy_provider.jobs.payload import plain_payload
from runqy_provider.models import Submission
from runqy_provider.sinks import failure_channel
from runqy_provider.sinks import inbox as inbox_parcels

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runqy_provider.context import Access
    from runqy_provider.hooks.runqy import RunqyHook
    from runqy_provider.sinks.base import Sink

#: XCom key of what was enqueued.
JOB_KEY = "runqy_job"

#: Seconds for which an address takes a delivery after the wait for it has ended: a
#: late result is kept, and a retry of the task can still find it.
LATE = 24 * 3600


def submit(
    hook: RunqyHook,
    access: Access,
    sink: Sink,
    *,
    runqy_queue: str,
    payload: Mapping[str, Any],
    delivery_id: str,
    deadline: float,
    job_timeout: float | None = None,
) -> Submission:
    """Check the sink, and enqueue the job with the delivery request in its payload.

    Args:
        hook: The runqy server.
        access: What is known of the connection.
        sink: Where the result is to go.
        runqy_queue: The queue.
        payload: What the handler gets; a JSON object.
        delivery_id: Our id of the delivery.
        deadline: Until when the result is waited for, in seconds since 1970.
        job_timeout: Seconds, as runqy stores them.

    Raises:
        InvalidPayload: It is no object, or has a field that belongs to us.
        Misconfigured: The delivery_id or a field of the connection makes no sense.
        SinkError: The result could not come home: nothing was enqueued.
        Rejected: runqy does not take the job.
    """
    check_delivery_id(delivery_id)
    payload = plain_payload(payload, runqy_queue)
    sink.check(access)
    expires = deadline + LATE
    request = sink.request(access, delivery_id, expires)
    if request.webhook_url is not None:
        inbox_parcels.warn_of_loopback(access)
    request = failure_channel.with_channel(access, sink, request, expires)
    sink.prepare(access, delivery_id)
    enqueued_at = round(time.time(), 3)
    job = hook.enqueue(
        runqy_queue, {**payload, **request.to_fields()}, job_timeout=job_timeout
    )
    return Submission(job.job_id, delivery_id, job.runqy_queue, sink.uri, enqueued_at)


def digest_of(
    runqy_conn_id: str, runqy_queue: str, sink: Sink, payload: Mapping[str, Any]
) -> str:
    """Return what two requests for the same work have in common.

    Raises:
        InvalidPayload: The payload is not a JSON object.
    """
    asked = [runqy_conn_id, runqy_queue, sink.uri, plain_payload(payload, runqy_queue)]
    text = json.dumps(asked, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def check_delivery_id(delivery_id: str) -> None:
    """Refuse ids that cannot stand in URLs, Redis keys and object keys.

    Raises:
        Misconfigured: It is such an id.
    """
    if not DELIVERY_ID.fullmatch(delivery_id):
        raise Misconfigured(
            f"{delivery_id!r} is no delivery_id: up to 128 letters, digits, dots, "
            "dashes and underscores, with a letter or digit first."
        )


#: Namespace of our ids; any fixed UUID would do, but it may never change.
NAMESPACE = uuid.UUID("6f1d3f5e-6d0b-5c9e-9a53-2f1b7c0a4e11")


def delivery_id_of(  # noqa: PLR0917 - all six are one attempt, and none has a default
    dag_id: str, run_id: str, task_id: str, map_index: int, attempt: int, ti_id: str
) -> str:
    """Return the delivery_id of one attempt of one task instance.

    ``ti_id`` is Airflow's own id of that attempt. The other five may come again: in a
    run that was deleted and made anew, or in another Airflow that shares a bucket.
    """
    # JSON, so that no two different sixes are written alike.
    name = json.dumps([dag_id, run_id, task_id, map_index, attempt, ti_id])
    return str(uuid.uuid5(NAMESPACE, name))
