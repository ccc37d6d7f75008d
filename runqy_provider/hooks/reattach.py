# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Find what the attempt before has started: its job, or its result."""

from __future__ import annotations

import dataclasses
import logging
import time
from typing import TYPE_CHECKING, Any

from runqy_delivery.wire import COMPLETED
from runqy_provider.errors import (
    JobVanished,
    Misconfigured,
    ResultLost,
    SinkUnavailable,
    by_name,
)
from runqy_provider.hooks.outcome import ARRIVED, ERROR
from runqy_provider.server import job as states
from runqy_provider.server.find_job import find_job

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from runqy_provider.hooks.attempt import Attempt
    from runqy_provider.hooks.runqy import RunqyHook
    from runqy_provider.sinks.base import Access

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
