# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""From the event that ended a wait to an error with a message."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NoReturn

from runqy_provider.client.models import PENDING
from runqy_provider.errors import (
    DeliveryTimeout,
    HeartbeatTimeout,
    JobVanished,
    Misconfigured,
    RunqyError,
    by_name,
)
from runqy_provider.hooks.runqy import RunqyHook
from runqy_provider.models import DEADLINE, ERROR, SILENT
from runqy_provider.sinks.registry import sink_from_uri

if TYPE_CHECKING:
    from runqy_provider.context import SinkContext
    from runqy_provider.models import DeliveryEvent


def raise_outcome(
    event: DeliveryEvent, context: SinkContext, limit: str = "its deadline"
) -> NoReturn:
    """Raise the error of a wait that ended without a delivery.

    Args:
        event: How the wait ended.
        context: The runqy connection and the options.
        limit: Which time limit the wait had, for the message.

    Raises:
        DeliveryTimeout: Nothing arrived by the deadline.
        HeartbeatTimeout: The job gave no sign of life for too long.
        RunqyError: Of the type that ended the wait.
    """
    job = event.job
    if event.kind == ERROR:
        raise by_name(event.error)(f"{event.message}{_progress(event)}")
    if event.kind == DEADLINE:
        raise DeliveryTimeout(
            f"No delivery {job.delivery_id} within {limit}, at sink {job.sink!r}. "
            f"{_diagnostics(event, context)}"
        )
    if event.kind == SILENT:
        raise HeartbeatTimeout(
            f"No sign of life from the job within {limit}, and no delivery "
            f"{job.delivery_id} at sink {job.sink!r}. Last sign: "
            f"{_utc(event.last_sign)}. {_diagnostics(event, context)}"
        )
    raise Misconfigured(
        f"The trigger's event is of the unknown kind {event.kind!r}. Do triggerer and "
        "worker run the same version of airflow-provider-runqy?"
    )


def _diagnostics(event: DeliveryEvent, context: SinkContext) -> str:
    """Say where the job is, and where its delivery was looked for."""
    job = event.job
    sink = sink_from_uri(job.sink).bind(context)
    sentences = [
        event.refusal or sink.describe_timeout(job),
        f"Last successful poll: {_utc(event.last_poll)}.",
    ]
    if event.last_error:
        sentences.append(f"The last poll failed: {event.last_error}")
    if job.job_id:
        sentences.append(_state_of_job(context, job.job_id))
    return " ".join(sentences) + _progress(event)


def _state_of_job(context: SinkContext, job_id: str) -> str:
    """Say what runqy knows of a job, or why that is not known."""
    try:
        with RunqyHook.from_context(context, retry_for=0) as hook:
            job = hook.get_job(job_id)
    except JobVanished as error:
        return str(error)
    except RunqyError as error:
        return f"runqy could not be asked about job {job_id}: {error}"
    if job.state == PENDING:
        return (
            f"The job has not started: runqy says that job {job_id} is pending. "
            f"Start a runqy worker for the queue {job.runqy_queue!r}, or wait longer."
        )
    return (
        f"runqy says that job {job_id} in queue {job.runqy_queue!r} is {job.state}, "
        f"retried {job.retried} of {job.max_retry} times."
    )


def _progress(event: DeliveryEvent) -> str:
    return f" Last progress: {event.progress}." if event.progress else ""


def _utc(seconds: float | None) -> str:
    if not seconds:
        return "never"
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))
