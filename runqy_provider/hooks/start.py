# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Start an attempt of a task, with the job of the one before or one of its own."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runqy_provider.hooks.attempt import Attempt, keep_attempt, read_attempt
from runqy_provider.hooks.identity import delivery_id_of
from runqy_provider.hooks.reattach import find_again
from runqy_provider.hooks.runqy import RunqyHook
from runqy_provider.hooks.submission import LATE, digest_of, submit
from runqy_provider.hooks.unbegun import delete_unbegun

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow.sdk import Context

    from runqy_provider.sinks.base import Access, Sink

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
