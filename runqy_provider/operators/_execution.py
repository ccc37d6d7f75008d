# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""What a worker does for a RunqyOperator: enqueue, wait or defer, return the result."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from runqy_provider.airflow_compat import map_index_of
from runqy_provider.errors import (
    BadDelivery,
    DeliveryTimeout,
    JobFailed,
    JobVanished,
    Misconfigured,
    NotThere,
    ResultLost,
    RunqyError,
)
from runqy_provider.hooks.result import RunqyResultHook, check_returns
from runqy_provider.hooks.runqy import RunqyHook
from runqy_provider.jobs.attempt_store import attempt_store
from runqy_provider.jobs.cancellation import (
    delete_if_pending,
    has_ended,
    is_last_attempt,
)
from runqy_provider.jobs.launch import JobSpec, abandon, reattach_or_submit
from runqy_provider.jobs.outcome import (
    DEFERRAL_GRACE,
    ReceivedDelivery,
    TimeLimit,
    defer,
    in_seconds,
    raise_not_arrived,
    while_unavailable,
)
from runqy_provider.jobs.task_end import task_end_of
from runqy_provider.jobs.telemetry import count_failed
from runqy_provider.jobs.waiting import look_once, wait_for
from runqy_provider.models import (
    ARRIVED,
    DEADLINE,
    DELIVERY_KEY,
    JOB_KEY,
    SILENT,
    DeliveryEvent,
    JobRef,
)
from runqy_provider.operators._task import DEFER_AFTER, DEFER_AFTER_ON_WORKER
from runqy_provider.settings import load_settings
from runqy_provider.sinks.inbox import InboxBackend
from runqy_provider.sinks.registry import sink_from_uri
from runqy_provider.triggers.delivery import DeliveryTrigger
from runqy_provider.waiters.waiter import run_wait

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow.sdk import Context
    from airflow.sdk.types import RuntimeTaskInstanceProtocol

    from runqy_provider.operators._task import RunqyTask
    from runqy_provider.sinks.base import Sink

#: Errors that reading again cannot fix: a retry must enqueue a new job.
PERMANENT_ERRORS = (JobFailed, BadDelivery, NotThere)

#: Errors that say that the job has ended: there is nothing to delete.
ENDED_ERRORS = (JobFailed, JobVanished)

#: Seconds for which a deletion is retried if the server is unavailable.
DELETE_RETRY_FOR = 5.0

#: A wait in the slot ends so many seconds before Airflow's execution_timeout.
TIMEOUT_HEADROOM = 3.0


class Execution:
    """One execution of a task, up to its deferral, or from there to its end.

    The connection is fetched once.

    Args:
        task: The operator.
        own: The operator class of this provider that it is an instance of.
    """

    def __init__(self, task: RunqyTask, own: type[RunqyTask]) -> None:
        self.task = task
        task.hide_links()
        self._own = own
        self.settings = load_settings(task.runqy_conn_id)
        self.job: JobRef | None = None
        self.ti: RuntimeTaskInstanceProtocol | None = None

    def execute(
        self,
        context: Context,
        payload: Mapping[str, Any],
        *,
        reattach: bool,
        end_from_trigger: bool | None,
    ) -> Any:
        """Enqueue the job, or find that of the previous attempt; wait, or defer.

        The arguments are those of the operator.
        """
        task = self.task
        check_returns(task.returns)
        sink = sink_from_uri(task.sink or self.settings.connection.sink)
        self._check_heartbeat(sink)
        end = None
        if task.deferrable:
            end = task_end_of(
                task,
                context,
                wanted=end_from_trigger,
                own=self._own,
                pushes_receipt=True,
                returns=task.returns,
            )
        deadline = time.time() + self._timeout_seconds()
        attempt = reattach_or_submit(
            context,
            self.settings,
            self._spec(payload, sink),
            deadline=deadline,
            reattach=reattach,
        )
        deadline = min(deadline, attempt.expires)
        job = self.job = attempt.job
        self.ti = context["ti"]
        context["ti"].xcom_push(key=JOB_KEY, value=job.to_xcom())
        self._link_queue(job)
        slot = task.defer_after
        if slot is None:
            slot = DEFER_AFTER_ON_WORKER if end is None else DEFER_AFTER
        event = self._wait(job, deadline, slot)
        if not task.deferrable or event.kind != DEADLINE:
            return self._finish(context, event)
        trigger = DeliveryTrigger.for_job(
            job,
            runqy_conn_id=task.runqy_conn_id,
            deadline=deadline,
            not_before=time.time() + self.settings.config.settle_seconds,
            heartbeat=in_seconds(task.heartbeat_timeout),
            delete_abandoned=task.delete_abandoned,
            task_end=None if end is None else end.to_json(),
        )
        return defer(task, trigger, deadline)

    def complete(self, context: Context, event: dict[str, Any]) -> Any:
        """Return the result of the delivery for which the trigger fired."""
        return self._finish(context, DeliveryEvent.from_payload(event))

    def complete_late(self, context: Context, error: BaseException) -> Any:
        """Return a result that arrived while no triggerer ran.

        Raises:
            DeliveryTimeout: None has arrived.
        """
        job, refusal = self._job_of(context), ""
        if job is not None:
            event = look_once(self.settings, job)
            if event.kind == ARRIVED:
                return self._finish(context, event)
            self._delete_if_last(context, job)
            refusal = event.refusal and f" {event.refusal}"
        raise DeliveryTimeout(
            f"Airflow ended the wait {DEFERRAL_GRACE} after {self._limit}: no "
            "triggerer did so before. Check that one runs, and has capacity."
            f"{refusal}"
        ) from error

    @staticmethod
    def _job_of(context: Context) -> JobRef | None:
        """Return the job that this attempt waits for."""
        ti = context["ti"]
        # Both are given, as versions of Airflow have different defaults for them.
        value = ti.xcom_pull(
            task_ids=ti.task_id, key=JOB_KEY, map_indexes=map_index_of(ti)
        )
        return None if value is None else JobRef.from_xcom(value)

    def _abandon(self, context: Context) -> None:
        """Make later attempts enqueue a new job."""
        abandon(attempt_store(context, self.settings))

    def kill(self) -> None:
        """Delete the job of a task that a user ended, if runqy has not started it."""
        task, job = self.task, self.job
        if job is None or self.ti is None or not task.delete_abandoned:
            return
        if not has_ended(self.ti):
            task.log.info(
                "Job %s is not deleted: the task may run again, and wait for it.",
                job.job_id,
            )
            return
        self._delete(job, retry_for=0)

    def _delete_if_last(self, context: Context, job: JobRef) -> None:
        """Delete a job, if no attempt of the task is left to wait for it."""
        if self.task.delete_abandoned and is_last_attempt(context["ti"]):
            self._delete(job, retry_for=DELETE_RETRY_FOR)

    def _delete(self, job: JobRef, retry_for: float) -> None:
        if job.job_id is None:
            return
        with RunqyHook.from_settings(self.settings, retry_for=retry_for) as hook:
            message = delete_if_pending(hook, job.runqy_queue or "", job.job_id)
        self.task.log.info(message)

    @property
    def _limit(self) -> TimeLimit:
        return TimeLimit.of(self.task, "delivery_timeout", self.task.delivery_timeout)

    def _timeout_seconds(self) -> float:
        """Return how long to wait, in seconds."""
        limit = self._limit
        seconds = limit.seconds
        if limit.name == "execution_timeout" and not self.task.deferrable:
            # Earlier than Airflow ends the process, as our message says more.
            seconds -= min(TIMEOUT_HEADROOM, seconds / 10)
        return seconds

    def _spec(self, payload: Mapping[str, Any], sink: Sink) -> JobSpec:
        task = self.task
        return JobSpec(
            task.runqy_conn_id,
            task.runqy_queue,
            payload,
            sink,
            task.job_options(),
            deletes=task.delete_abandoned,
        )

    def _wait(
        self, job: JobRef, deadline: float, defer_after: timedelta
    ) -> DeliveryEvent:
        """Wait in the slot: to the end, or for ``defer_after``."""
        task, heartbeat = self.task, in_seconds(self.task.heartbeat_timeout)
        if task.deferrable:
            deadline = min(deadline, time.time() + defer_after.total_seconds())
            heartbeat = None  # the wait is too short for one
        return run_wait(
            wait_for(
                self.settings,
                job,
                deadline=deadline,
                heartbeat_timeout=heartbeat,
                monitor=not task.deferrable,
                log=task.log,
            )
        )

    def _check_heartbeat(self, sink: Sink) -> None:
        timeout = self.task.heartbeat_timeout
        if timeout is None:
            return
        if timeout <= timedelta(0):
            raise Misconfigured("heartbeat_timeout must be longer than zero.")
        reason = InboxBackend(self.settings).config_error
        if reason is None and not sink.takes_progress:
            from runqy_provider.sinks.combined import (  # noqa: PLC0415 - rarely used
                how_to_take_progress,
            )

            reason = how_to_take_progress(sink)
        if reason is not None:
            raise Misconfigured(
                "heartbeat_timeout needs progress messages, which the sink "
                f"{sink.uri!r} does not get here. {reason}"
            )

    def _finish(self, context: Context, event: DeliveryEvent) -> Any:
        self._link_queue(event.job)
        try:
            return self._result(context, event)
        except RunqyError as error:
            count_failed(event.job, error)
            if event.kind != ARRIVED and not isinstance(error, ENDED_ERRORS):
                self._delete_if_last(context, event.job)
            raise

    def _result(self, context: Context, event: DeliveryEvent) -> Any:
        if event.kind != ARRIVED:
            self._raise_not_arrived(context, event)
        task = self.task
        results = RunqyResultHook.from_settings(self.settings)
        received = ReceivedDelivery(event, results, task.returns)
        try:
            while_unavailable(received.read)
        except PERMANENT_ERRORS:
            self._abandon(context)
            raise
        finally:
            context["ti"].xcom_push(key=DELIVERY_KEY, value=received.receipt)
        task.show_result_link(received.download_url)
        task.receipt = received.receipt
        if received.reference is not None:
            task.add_to_outlets(context, received.reference)
        received.forget()
        return received.value

    def _link_queue(self, job: JobRef) -> None:
        """Set what Airflow reads for the link whenever this process ends."""
        if job.runqy_queue is not None:
            server_url = self.settings.connection.server_url
            self.task.show_queue_link(server_url, job.runqy_queue)

    def _raise_not_arrived(self, context: Context, event: DeliveryEvent) -> NoReturn:
        if event.kind == SILENT:
            # The job seems to hang, and a retry that waits for it would hang, too.
            self._abandon(context)
        timeout = self.task.heartbeat_timeout
        try:
            raise_not_arrived(event, self.settings, self._limit, timeout)
        except PERMANENT_ERRORS as error:
            # If a sink does not exist at the moment, that says nothing about the job.
            if not isinstance(error, NotThere) or isinstance(error, ResultLost):
                self._abandon(context)
            raise
