# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Start an attempt of a task, with the job of the one before or one of its own."""

from __future__ import annotations

import dataclasses
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runqy_delivery.wire import COMPLETED
from runqy_provider.client import models as states
from runqy_provider.client.find_job import find_job
from runqy_provider.errors import (
    JobVanished,
    Misconfigured,
    ResultLost,
    SinkUnavailable,
    by_name,
)
from runqy_provider.hooks.runqy import RunqyHook
from runqy_provider.jobs.attempt import Attempt, keep_attempt, read_attempt
from runqy_provider.jobs.cancellation import delete_unbegun
from runqy_provider.jobs.outcome import ARRIVED, ERROR
from runqy_provider.jobs.submission import LATE, delivery_id_of, digest_of, submit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow.sdk import Context

    from runqy_provider.context import Access
    from runqy_provider.sinks.base import Sink

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Work:
    """What a task asks of runqy.

    Attributes:
        runqy_conn_id: The connection.
        runqy_queue: The queue; without a dot, its default sub-queue.
        payload: What the handler gets.
        sink: Where the result is to go.
        job_timeout: Seconds, as runqy stores them.
        deletes: Whether a job that is waited for no more is deleted, if it has not
            begun.
    """

    runqy_conn_id: str
    runqy_queue: str
    payload: Mapping[str, Any]
    sink: Sink
    job_timeout: float | None = None
    deletes: bool = True

    def attempt(self, context: Context, deadline: float) -> Attempt:
        """Return the attempt of a task instance at it, with no job yet."""
        ti = context["ti"]
        index = -1 if ti.map_index is None else ti.map_index
        full_name = self.runqy_queue
        if "." not in full_name:
            full_name += ".default"
        return Attempt(
            delivery_id=delivery_id_of(
                ti.dag_id, ti.run_id, ti.task_id, index, ti.try_number, str(ti.id)
            ),
            digest=digest_of(self.runqy_conn_id, full_name, self.sink, self.payload),
            max_tries=ti.max_tries or 0,
            retries=ti.task.retries or 0,
            runqy_queue=full_name,
            sink=self.sink.uri,
            expires=deadline + LATE,
        )


def start(
    context: Context,
    access: Access,
    work: Work,
    *,
    deadline: float,
    look: Callable[[Attempt], Mapping[str, Any]] | None,
) -> Attempt:
    """Return the attempt to wait for: the one before, or one that begins now.

    Args:
        context: The task instance's.
        access: What is known of the connection.
        work: What is asked.
        deadline: Until when the result is waited for, in seconds since 1970.
        look: Looks once for an attempt's delivery, and returns the event; None where
            the attempt before is not to be looked for.

    Raises:
        RunqyError: Neither can be; what was not enqueued is not waited for.
    """
    attempt = work.attempt(context, deadline)
    with RunqyHook(work.runqy_conn_id) as hook:
        before = read_attempt(context)
        if before is not None:
            found = _find_again(hook, access, before, attempt, look)
            if found is not None:
                keep_attempt(context, found)
                return found
            if work.deletes and before.job_id is not None:
                # Nobody waits for it any more: it is not to run beside the new one.
                log.info(delete_unbegun(hook, before.runqy_queue, before.job_id))
        keep_attempt(context, attempt)
        submission = submit(
            hook,
            access,
            work.sink,
            runqy_queue=work.runqy_queue,
            payload=work.payload,
            delivery_id=attempt.delivery_id,
            deadline=deadline,
            job_timeout=work.job_timeout,
        )
    attempt = attempt.with_job(submission)
    keep_attempt(context, attempt)
    log.info(
        "Enqueued job %s in queue %r; its result goes to %r as delivery %s.",
        attempt.job_id,
        attempt.runqy_queue,
        attempt.sink,
        attempt.delivery_id,
    )
    return attempt


def _find_again(
    hook: RunqyHook,
    access: Access,
    before: Attempt,
    attempt: Attempt,
    look: Callable[[Attempt], Mapping[str, Any]] | None,
) -> Attempt | None:
    if look is None or before.is_given_up or not before.is_same_work(attempt):
        return None
    found = find_again(hook, access, before, attempt, look)
    if found is not None:
        log.info(
            "The attempt before has job %s under way, or its result is there: waiting "
            "for its delivery %s, nothing is enqueued.",
            found.job_id or "(of unknown id)",
            found.delivery_id,
        )
    return found


log = logging.getLogger(__name__)

#: States of a job that will still come to an end.
LIVING = (states.PENDING, states.ACTIVE, states.RETRY, states.SCHEDULED)


def find_again(
    hook: RunqyHook,
    access: Access,
    before: Attempt,
    attempt: Attempt,
    look: Callable[[Attempt], Mapping[str, Any]],
) -> Attempt | None:
    """Return the attempt before with its job, if it is worth waiting for.

    Args:
        hook: The runqy server.
        access: What is known of the connection.
        before: The attempt before.
        attempt: The one that begins now.
        look: Looks once for an attempt's delivery, and returns the event.

    Returns:
        None where a job is to be enqueued anew: nothing was enqueued, or the job
        failed, was deleted or is forgotten, and left no result.

    Raises:
        ServerUnavailable: runqy cannot say; nothing is to be enqueued meanwhile.
        SinkError: The sink cannot say; likewise.
    """
    # Without runqy's Redis its job cannot be told; its result may be there, though.
    if before.job_id is None and access.runqy_redis is not None:
        found = find_job(access.runqy_redis, before.runqy_queue, before.delivery_id)
        before = dataclasses.replace(before, job_id=found)
    try:
        has_come = _has_come(look, before)
    except SinkUnavailable as error:
        log.warning("Whether the attempt before has a result is not known: %s", error)
        has_come = None  # a job that lives is waited for all the same
    # Where a result is there, it was returned, and a user cleared the task: Airflow
    # then adds the retries to max_tries, which may come to the same number again.
    is_cleared = before.retries != attempt.retries
    if has_come is not None:
        return before if has_come and not is_cleared else None
    if before.job_id is None:
        return before if _has_come(look, before) and not is_cleared else None
    if before.expires <= time.time():
        log.info("The job before may not deliver any more: its time is up.")
        return None
    try:
        state = hook.get_job(before.job_id).state
    except JobVanished:
        state = ""
    if state in LIVING:
        return before
    # It may have ended between the two looks.
    return before if _has_come(look, before) and not is_cleared else None


def _has_come(
    look: Callable[[Attempt], Mapping[str, Any]], before: Attempt
) -> bool | None:
    """Tell whether a result is there: False for a failure, None for nothing yet.

    Raises:
        SinkUnavailable: Nobody can tell just now: to enqueue anew might lose it.
        SinkError: The sink says more than that.
    """
    event = look(before)
    if event["event"] == ERROR:
        error = by_name(event["error"])
        # Some sinks cannot look without a job's id.
        has_no_job = issubclass(error, Misconfigured) and before.job_id is None
        if issubclass(error, (JobVanished, ResultLost)) or has_no_job:
            return None
        raise error(event["message"])
    if event["event"] == ARRIVED:
        return bool(event["status"] == COMPLETED)
    if event.get("unseen"):
        raise SinkUnavailable(
            f"The attempt before may have left its result (delivery "
            f"{before.delivery_id}) at {before.sink!r}, which cannot be looked at just "
            f"now, so nothing was enqueued: {event['unseen']}"
        )
    return None
