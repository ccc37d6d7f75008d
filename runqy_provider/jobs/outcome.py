# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""From the event that ended a wait to a value, or to an error with words."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NoReturn

from runqy_provider.errors import (
    DeliveryTimeout,
    HeartbeatTimeout,
    JobVanished,
    Misconfigured,
    RunqyError,
    by_name,
)
from runqy_provider.hooks.result import RunqyResultHook
from runqy_provider.hooks.runqy import RunqyHook
from runqy_provider.models import Ticket
from runqy_provider.sinks.registry import parse_sink

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runqy_provider.sinks.base import Sink

#: What ends a wait.
ARRIVED, DEADLINE, ERROR, SILENT = "arrived", "deadline", "error", "silent"


def raise_outcome(
    event: Mapping[str, Any], runqy_conn_id: str, limit: str = "its deadline"
) -> NoReturn:
    """Raise the error of a wait that ended without a delivery.

    Args:
        event: Payload of the trigger's event.
        runqy_conn_id: The runqy connection.
        limit: Which time limit it had, for the message.

    Raises:
        DeliveryTimeout: Nothing came by the deadline.
        HeartbeatTimeout: No sign of life came for too long.
        RunqyError: Of the type that ended the wait.
    """
    kind = event.get("event")
    if kind == ERROR:
        error = by_name(event["error"])
        raise error(f"{event['message']}{_progress(event)}")
    sink, delivery_id = parse_sink(event["sink"]), event["delivery_id"]
    results = RunqyResultHook(runqy_conn_id)
    if kind == DEADLINE:
        words = f"No delivery {delivery_id} within {limit}, at sink {sink.uri!r}."
        raise DeliveryTimeout(f"{words} {_circumstances(event, results, sink)}")
    if kind == SILENT:
        words = (
            f"No sign of life from the job within {limit}, and no delivery "
            f"{delivery_id} at sink {sink.uri!r}. Last sign: "
            f"{_time(event.get('last_sign'))}."
        )
        raise HeartbeatTimeout(f"{words} {_circumstances(event, results, sink)}")
    raise Misconfigured(
        f"The trigger's event is of the unknown kind {kind!r}. Do triggerer and worker "
        "run the same version of airflow-provider-runqy?"
    )


def _circumstances(
    event: Mapping[str, Any], results: RunqyResultHook, sink: Sink
) -> str:
    job_id = event.get("job_id")
    ticket = Ticket(event["delivery_id"], job_id, event.get("runqy_queue"))
    words = [
        sink.nothing_arrived(results.access, ticket),
        f"Last looked: {_time(event.get('last_look'))}.",
    ]
    if event.get("trouble"):
        words.append(f"The last look failed: {event['trouble']}")
    if job_id:
        words.append(what_runqy_says(job_id, results.runqy_conn_id))
    return " ".join(words) + _progress(event)


def _progress(event: Mapping[str, Any]) -> str:
    progress = event.get("progress")
    return f" Last progress: {progress}." if progress else ""


def what_runqy_says(job_id: str, runqy_conn_id: str) -> str:
    """Say what runqy knows of a job, whatever happens."""
    try:
        with RunqyHook(runqy_conn_id, retry_for=0) as hook:
            job = hook.get_job(job_id)
    except JobVanished as error:
        return str(error)
    except RunqyError as error:
        return f"runqy could not be asked about job {job_id}: {error}"
    return (
        f"runqy says that job {job_id} in queue {job.runqy_queue!r} is {job.state}, "
        f"retried {job.retried} of {job.max_retry} times."
    )


def _time(seconds: float | None) -> str:
    if not seconds:
        return "never with success"
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))
