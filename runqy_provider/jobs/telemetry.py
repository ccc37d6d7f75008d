# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Metrics of jobs through Airflow's own statistics, and attributes of its trace spans.

| metric | kind | tags |
|---|---|---|
| ``runqy.jobs.enqueued`` | counter | queue, sink |
| ``runqy.jobs.waiting`` | gauge: waits of one triggerer | |
| ``runqy.jobs.delivered`` | counter | queue, sink |
| ``runqy.jobs.failed`` | counter | queue, sink, reason (class of the error) |
| ``runqy.jobs.wait`` | timer: from enqueueing to delivery | queue, sink |
| ``runqy.jobs.lag`` | timer: from delivery to the end of the task | queue, sink |
| ``runqy.deliveries.rejected`` | counter, of the receiver in Airflow | reason |
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from opentelemetry import trace

from runqy_provider.airflow_compat import metrics

if TYPE_CHECKING:
    from runqy_provider.models import DeliveryEvent, JobRef

#: How many triggers of this process wait.
_waiting = 0


def count_enqueued(job: JobRef, number: int = 1) -> None:
    """Count jobs that were enqueued, and name one of them in the current span."""
    metrics().incr("runqy.jobs.enqueued", number, tags=_tags(job))
    trace.get_current_span().set_attributes(
        {
            "runqy.job_id": job.job_id or "",
            "runqy.delivery_id": job.delivery_id,
            "runqy.queue": job.runqy_queue or "",
            "runqy.sink": _scheme(job),
        }
    )


def count_delivered(event: DeliveryEvent) -> None:
    """Count a result that was read, and record how long it took."""
    tags, job = _tags(event.job), event.job
    metrics().incr("runqy.jobs.delivered", tags=tags)
    if job.enqueued_at and event.delivered_at:
        wait = max(0.0, event.delivered_at - job.enqueued_at)
        metrics().timing("runqy.jobs.wait", wait * 1000, tags=tags)
    if event.delivered_at:
        lag = max(0.0, time.time() - event.delivered_at)
        metrics().timing("runqy.jobs.lag", lag * 1000, tags=tags)


def count_batch(job: JobRef, completed: int, failed: int) -> None:
    """Count the jobs of a batch that have ended since they were last counted."""
    if completed > 0:
        metrics().incr("runqy.jobs.delivered", completed, tags=_tags(job))
    if failed > 0:
        tags = {**_tags(job), "reason": "JobFailed"}
        metrics().incr("runqy.jobs.failed", failed, tags=tags)


def count_failed(job: JobRef, error: Exception) -> None:
    """Count a wait that ended with an error."""
    tags = {**_tags(job), "reason": type(error).__name__}
    metrics().incr("runqy.jobs.failed", tags=tags)


def add_waiting(number: int) -> None:
    """Count triggers that begin to wait; a negative number for those that end."""
    global _waiting  # noqa: PLW0603 - one count per process, as the gauge is
    _waiting += number
    metrics().gauge("runqy.jobs.waiting", _waiting)


def _tags(job: JobRef) -> dict[str, str]:
    return {"runqy_queue": job.runqy_queue or "unknown", "sink": _scheme(job)}


def _scheme(job: JobRef) -> str:
    """Return the kind of a sink: its URI has names of buckets and connections."""
    return job.sink.split(maxsplit=1)[0].partition("://")[0] if job.sink else "unknown"
