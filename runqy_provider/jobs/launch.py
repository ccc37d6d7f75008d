# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Start an attempt of a task: with the job of the previous one, or with a new job."""

from __future__ import annotations

import dataclasses
import logging
import time
from typing import TYPE_CHECKING

from runqy_delivery.wire import COMPLETED
from runqy_provider.client import models as job_states
from runqy_provider.connections import REDIS
from runqy_provider.errors import (
    DeliveryIdTaken,
    JobVanished,
    Misconfigured,
    ResultLost,
    SinkUnavailable,
    by_name,
)
from runqy_provider.hooks.runqy import RunqyHook
from runqy_provider.jobs.attempt_store import attempt_store
from runqy_provider.jobs.cancellation import delete_if_pending
from runqy_provider.jobs.telemetry import count_enqueued
from runqy_provider.jobs.waiting import look_once
from runqy_provider.models import ARRIVED, ERROR

if TYPE_CHECKING:
    from airflow.sdk import Context

    from runqy_provider.context import SinkContext
    from runqy_provider.jobs.attempt import Attempt
    from runqy_provider.jobs.attempt_store import AttemptStore
    from runqy_provider.jobs.submission import JobSpec

log = logging.getLogger(__name__)

#: States of a job that has not ended.
RUNNING = (
    job_states.PENDING,
    job_states.ACTIVE,
    job_states.RETRY,
    job_states.SCHEDULED,
)


def reattach_or_submit(
    context: Context,
    sink_context: SinkContext,
    spec: JobSpec,
    *,
    deadline: float,
    reattach: bool = True,
) -> Attempt:
    """Return the attempt to wait for: the previous one, or one that begins now.

    Args:
        context: The task instance's.
        sink_context: The runqy connection and the options.
        spec: What the task asks for.
        deadline: Until when the result is waited for, in seconds since 1970.
        reattach: Whether to look for the job of the previous attempt.

    Raises:
        RunqyError: Neither is possible; where nothing was enqueued, it says so.
    """
    chooses_id = sink_context.connection.transport == REDIS
    attempt = spec.attempt(context, deadline, chooses_id=chooses_id)
    store = attempt_store(context, sink_context)
    with RunqyHook.from_context(sink_context) as hook:
        for previous in store.previous(spec.earlier_attempts(context, attempt)):
            found = _reattach(hook, previous, attempt) if reattach else None
            if found is not None:
                store.update(found)
                return found
            job = previous.job
            if spec.deletes and job.job_id is not None:
                # It is not waited for any more, and must not run beside the new one.
                log.info(delete_if_pending(hook, job.runqy_queue or "", job.job_id))
        try:
            attempt = _submit(hook, store, spec, attempt, deadline)
        except DeliveryIdTaken as error:
            log.warning("%s Another id is used for this attempt.", error)
            attempt = _submit(hook, store, spec, attempt.with_new_id(), deadline)
    job = attempt.job
    count_enqueued(job)
    log.info(
        "Enqueued job %s in queue %r; its result goes to %r as delivery %s.",
        job.job_id,
        job.runqy_queue,
        job.sink,
        job.delivery_id,
    )
    return attempt


def _submit(
    hook: RunqyHook,
    store: AttemptStore,
    spec: JobSpec,
    attempt: Attempt,
    deadline: float,
) -> Attempt:
    store.save(attempt)
    job = hook.submit(
        spec.sink,
        runqy_queue=spec.runqy_queue,
        payload=spec.payload,
        delivery_id=attempt.job.delivery_id,
        deadline=deadline,
        options=spec.options,
    )
    attempt = attempt.with_job(job)
    store.update(attempt)
    return attempt


def _reattach(hook: RunqyHook, previous: Attempt, attempt: Attempt) -> Attempt | None:
    if previous.is_abandoned or not previous.is_same_work(attempt):
        return None
    found = find_previous(hook, previous, attempt)
    if found is not None:
        log.info(
            "Job %s of the previous attempt has not ended, or its result has arrived: "
            "waiting for its delivery %s, nothing is enqueued.",
            found.job.job_id or "(of unknown id)",
            found.job.delivery_id,
        )
    return found


def find_previous(
    hook: RunqyHook, previous: Attempt, attempt: Attempt
) -> Attempt | None:
    """Return the previous attempt with its job, if it is worth waiting for.

    Args:
        hook: The runqy server.
        previous: The previous attempt.
        attempt: The one that begins now.

    Returns:
        None where a new job is to be enqueued: nothing was enqueued, or the job
        failed, was deleted or is forgotten, and left no result.

    Raises:
        ServerUnavailable: runqy cannot say; nothing may be enqueued meanwhile.
        SinkError: The sink cannot say; likewise nothing may be enqueued.
    """
    redis = hook.context.runqy_redis
    job = previous.job
    # Without runqy's Redis the job is not found; its result may have arrived, though.
    if job.job_id is None and redis is not None:
        from runqy_provider.client.find_job import (  # noqa: PLC0415 - rarely needed
            find_job,
        )

        job_id = find_job(redis, job.runqy_queue or "", job.delivery_id)
        job = dataclasses.replace(job, job_id=job_id)
        previous = previous.with_job(job)
    try:
        has_result = _has_result(hook, previous)
    except SinkUnavailable as error:
        log.warning("The result of the previous attempt is not known: %s", error)
        has_result = None  # a job that has not ended is waited for all the same
    # Where a result is there, it was returned, and a user cleared the task: Airflow
    # then adds the retries to max_tries, which may give the same number again.
    is_cleared = previous.retries != attempt.retries
    if has_result is not None:
        return previous if has_result and not is_cleared else None
    if job.job_id is not None:
        if previous.expires <= time.time():
            log.info("The previous job may not deliver any more: its URL has expired.")
            return None
        if _is_running(hook, job.job_id):
            return previous
    # It may have ended between the two looks.
    return previous if _has_result(hook, previous) and not is_cleared else None


def _is_running(hook: RunqyHook, job_id: str) -> bool:
    try:
        return hook.get_job(job_id).state in RUNNING
    except JobVanished:
        return False


def _has_result(hook: RunqyHook, previous: Attempt) -> bool | None:
    """Return whether a result is there: False for a failure, None for nothing yet.

    Raises:
        SinkUnavailable: That is not known just now: a new job might lose the result.
        SinkError: The sink says more than that.
    """
    job = previous.job
    event = look_once(hook.context, job)
    if event.kind == ERROR:
        error = by_name(event.error)
        # Some sinks cannot look without a job's id.
        has_no_job = issubclass(error, Misconfigured) and job.job_id is None
        if issubclass(error, (JobVanished, ResultLost)) or has_no_job:
            return None
        raise error(event.message)
    if event.kind == ARRIVED:
        return event.status == COMPLETED
    if event.unreachable:
        raise SinkUnavailable(
            f"The previous attempt may have left its result (delivery "
            f"{job.delivery_id}) at {job.sink!r}, which cannot be read just now, so "
            f"nothing was enqueued: {event.unreachable}"
        )
    return None
