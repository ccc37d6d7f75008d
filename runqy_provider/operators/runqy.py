# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Run a job on runqy and bring its result home."""

from __future__ import annotations

import functools
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from airflow.sdk import BaseOperator, Context
from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import TaskDeferralTimeout

from runqy_provider.connections import DEFAULT_CONN_ID
from runqy_provider.context import get_access
from runqy_provider.errors import (
    BadDelivery,
    DeliveryTimeout,
    JobFailed,
    Misconfigured,
    NotThere,
    ResultLost,
)
from runqy_provider.hooks.result import AUTO, RunqyResultHook, check_returns
from runqy_provider.hooks.runqy import RunqyHook
from runqy_provider.jobs.attempt import give_up_attempt, read_attempt
from runqy_provider.jobs.cancellation import delete_unbegun, has_ended
from runqy_provider.jobs.launch import Work, start
from runqy_provider.jobs.outcome import ARRIVED, DEADLINE, SILENT, raise_outcome
from runqy_provider.jobs.received import DELIVERY_KEY, ReceivedDelivery
from runqy_provider.jobs.submission import JOB_KEY
from runqy_provider.jobs.task_end import TaskEnd, task_end_of
from runqy_provider.links.result import ResultLink
from runqy_provider.sinks import inbox as inbox_parcels
from runqy_provider.sinks.combined import how_to_take_progress
from runqy_provider.sinks.registry import parse_sink
from runqy_provider.triggers.delivery import DeliveryTrigger

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.sdk.types import RuntimeTaskInstanceProtocol

    from runqy_provider.context import Access
    from runqy_provider.hooks.result import Returns
    from runqy_provider.jobs.attempt import Attempt
    from runqy_provider.models import Submission
    from runqy_provider.sinks.base import Sink
    from runqy_provider.sinks.registry import SinkArgument

#: How long a delivery is waited for where the task does not say.
DELIVERY_TIMEOUT = timedelta(hours=24)

#: How long a task waits in its slot before it defers, where it does not say. Jobs of
#: half a second then end their tasks at once, and not after 2 s; longer ones hold their
#: slots for a tenth more (devtools/benchmarks/defer_after.py).
DEFER_AFTER = timedelta(seconds=1)

#: Airflow's own timeout of the deferral comes this much later than our deadline,
#: which has better words.
BACKSTOP = timedelta(minutes=2)

#: What a result ends with that will not be another one the next time it is read: a
#: retry needs another job.
FRUITLESS = (JobFailed, BadDelivery, NotThere)

#: Seconds by which a wait in the slot ends before Airflow's execution_timeout does it.
EARLIER = 3.0


class RunqyOperator(BaseOperator):
    """Enqueue a job on runqy, defer, and return its result.

    The task returns the result itself where it is JSON of up to ``[runqy] xcom_limit``
    bytes, else a reference that ``RunqyResultHook.read`` opens. XCom ``runqy_job``
    says what was enqueued, ``runqy_delivery`` how it came back.

    :param runqy_queue: Queue of the job: ``parent.sub``, or ``parent`` for its default
        sub-queue. (templated)
    :param payload: What the handler gets; a JSON object. (templated)
    :param sink: Where the result is to go: ``webhook``, ``s3://bucket/prefix``, another
        of ``docs/sinks.md``, a Sink, or a list of them, of which the first holds the
        result and the others tell of it; the connection's where not given. (templated)
    :param runqy_conn_id: The runqy connection. (templated)
    :param deferrable: Free the worker slot while waiting; False waits in the slot.
    :param delivery_timeout: How long to wait for the result, time in the queue
        included. ``execution_timeout`` shortens it.
    :param defer_after: How long to wait in the slot before deferring: spares short
        jobs the way through the triggerer.
    :param heartbeat_timeout: How long a job that has begun may give no sign of life
        (``runqy_delivery.progress``) before the wait for it ends.
    :param job_timeout: Timeout that runqy stores with the job; it does not enforce it.
    :param reattach: Let a retry wait for the job of the attempt before, if that asked
        for the same and has not failed; False enqueues anew at every attempt.
    :param end_from_trigger: Whether the triggerer ends the task once its result is
        there, which spares a second worker start. None: where nothing is lost by it;
        True: always, and the task fails before anything is enqueued where something
        would be lost; False: never.
    :param returns: What the task returns: ``auto``, the result itself where XCom can
        hold it, else a reference; ``value``, the result, and the task fails where it
        is too large; ``reference``, always a reference.
    :param delete_on_kill: Delete the job, if it has not begun, when a user ends the
        task, or when a later attempt enqueues another one; needs the connection's
        admin key.
    """

    template_fields: Sequence[str] = ("runqy_queue", "payload", "sink", "runqy_conn_id")
    template_fields_renderers: ClassVar[dict[str, str]] = {"payload": "json"}
    ui_color = "#e3f0e8"
    operator_extra_links = (ResultLink(),)

    def __init__(
        self,
        *,
        runqy_queue: str,
        payload: Mapping[str, Any] | None = None,
        sink: SinkArgument | None = None,
        runqy_conn_id: str = DEFAULT_CONN_ID,
        deferrable: bool = True,
        delivery_timeout: timedelta = DELIVERY_TIMEOUT,
        defer_after: timedelta = DEFER_AFTER,
        heartbeat_timeout: timedelta | None = None,
        job_timeout: timedelta | None = None,
        reattach: bool = True,
        delete_on_kill: bool = True,
        end_from_trigger: bool | None = None,
        returns: Returns = AUTO,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.runqy_queue = runqy_queue
        self.payload = {} if payload is None else payload
        self.sink = sink
        self.runqy_conn_id = runqy_conn_id
        self.deferrable = deferrable
        self.delivery_timeout = delivery_timeout
        self.defer_after = defer_after
        self.heartbeat_timeout = heartbeat_timeout
        self.job_timeout = job_timeout
        self.reattach = reattach
        self.delete_on_kill = delete_on_kill
        self.end_from_trigger = end_from_trigger
        self.returns = returns
        self.download_url: str | None = None
        self._submission: Submission | None = None
        self._ti: RuntimeTaskInstanceProtocol | None = None

    def execute(self, context: Context) -> Any:
        """Enqueue the job, or find that of the attempt before; wait, or defer."""
        check_returns(self.returns)
        access = get_access(self.runqy_conn_id)
        sink = parse_sink(self.sink or access.settings.sink)
        self._check_heartbeat(access, sink)
        end = self._task_end(context) if self.deferrable else None
        deadline = time.time() + self._patience()
        job_timeout = self.job_timeout
        work = Work(
            self.runqy_conn_id,
            self.runqy_queue,
            self.payload,
            sink,
            None if job_timeout is None else job_timeout.total_seconds(),
            deletes=self.delete_on_kill,
        )
        look = functools.partial(self._look, access) if self.reattach else None
        attempt = start(context, access, work, deadline=deadline, look=look)
        deadline = min(deadline, attempt.expires)
        submission = self._submission = attempt.submission()
        self._ti = context["ti"]
        context["ti"].xcom_push(key=JOB_KEY, value=submission.to_xcom())
        patience = deadline
        if self.deferrable:
            patience = min(deadline, time.time() + self.defer_after.total_seconds())
        event = self._trigger(submission, patience).wait_here(
            access, watch=not self.deferrable
        )
        if not self.deferrable or event["event"] != DEADLINE:
            return self._finish(context, event)
        settle = conf.getfloat("runqy", "settle_seconds")
        self.defer(
            trigger=self._trigger(submission, deadline, time.time() + settle, end),
            method_name="execute_complete",
            timeout=timedelta(seconds=max(0.0, deadline - time.time())) + BACKSTOP,
        )
        return None

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """Return the result that the trigger saw arrive."""
        return self._finish(context, event)

    def resume_execution(
        self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context
    ) -> Any:
        """Go on after the wait; say it in our words where Airflow ended the wait."""
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except TaskDeferralTimeout as error:
            # It may have come all the same, with nobody there to see it.
            attempt = read_attempt(context)
            if attempt is not None:
                event = self._look(get_access(self.runqy_conn_id), attempt)
                if event["event"] == ARRIVED:
                    return self._finish(context, event)
            name, length = self._limit()
            raise DeliveryTimeout(
                f"Airflow ended the wait {BACKSTOP} after {name} ({length}): no "
                "triggerer did so before. Check that one runs, and has capacity."
            ) from error

    def on_kill(self) -> None:
        """Delete the job of a task that a user ended, if runqy has not begun it."""
        if self._submission is None or self._ti is None or not self.delete_on_kill:
            return
        if not has_ended(self._ti):
            self.log.info(
                "Job %s is left alone: the task may run again, and wait for it.",
                self._submission.job_id,
            )
            return
        queue, job_id = self._submission.runqy_queue, self._submission.job_id
        with RunqyHook(self.runqy_conn_id, retry_for=0) as hook:
            self.log.info(delete_unbegun(hook, queue, job_id))

    def _limit(self) -> tuple[str, timedelta]:
        """Return the argument that limits the wait, and its value."""
        name, shortest = "delivery_timeout", self.delivery_timeout
        # Airflow does not count execution_timeout while a task is deferred.
        if self.execution_timeout is not None and self.execution_timeout < shortest:
            name, shortest = "execution_timeout", self.execution_timeout
        if shortest <= timedelta(0):
            raise Misconfigured(f"{name} must be longer than zero.")
        return name, shortest

    def _patience(self) -> float:
        """Return how long to wait, in seconds."""
        name, limit = self._limit()
        seconds = limit.total_seconds()
        if name == "execution_timeout" and not self.deferrable:
            # Before Airflow ends the process, which would say nothing but so.
            seconds -= min(EARLIER, seconds / 10)
        return seconds

    def _check_heartbeat(self, access: Access, sink: Sink) -> None:
        if self.heartbeat_timeout is None:
            return
        if self.heartbeat_timeout <= timedelta(0):
            raise Misconfigured("heartbeat_timeout must be longer than zero.")
        words = inbox_parcels.missing(access)
        if words is None and not sink.takes_progress:
            words = how_to_take_progress(sink)
        if words is not None:
            raise Misconfigured(
                f"heartbeat_timeout needs progress messages, and the sink {sink.uri!r} "
                f"takes none here. {words}"
            )

    def _task_end(self, context: Context) -> TaskEnd | None:
        return task_end_of(
            self,
            context,
            wanted=self.end_from_trigger,
            own=RunqyOperator,
            pushes_receipt=True,
            returns=self.returns,
        )

    def _look(self, access: Access, attempt: Attempt) -> dict[str, Any]:
        trigger = self._trigger(attempt.submission(), 0.0)
        return trigger.wait_here(access, watch=False)

    def _trigger(
        self,
        submission: Submission,
        deadline: float,
        not_before: float = 0.0,
        end: TaskEnd | None = None,
    ) -> DeliveryTrigger:
        return DeliveryTrigger(
            runqy_conn_id=self.runqy_conn_id,
            delivery_id=submission.delivery_id,
            sink=submission.sink,
            deadline=deadline,
            not_before=not_before,
            job_id=submission.job_id or None,
            runqy_queue=submission.runqy_queue,
            heartbeat=None
            if self.heartbeat_timeout is None
            else self.heartbeat_timeout.total_seconds(),
            delete_on_kill=self.delete_on_kill,
            task_end=None if end is None else end.to_json(),
        )

    def _finish(self, context: Context, event: dict[str, Any]) -> Any:
        if event["event"] != ARRIVED:
            self._not_arrived(context, event)
        results = RunqyResultHook(self.runqy_conn_id)
        received = ReceivedDelivery(event, results, self.returns)
        try:
            received.read()
        except FRUITLESS:
            give_up_attempt(context)
            raise
        finally:
            context["ti"].xcom_push(key=DELIVERY_KEY, value=received.receipt)
        self.download_url = received.download_url
        received.forget()
        return received.value

    def _not_arrived(self, context: Context, event: dict[str, Any]) -> NoReturn:
        name, length = self._limit()
        if event["event"] == SILENT:
            name, length = "heartbeat_timeout", self.heartbeat_timeout or length
            # It seems to hang: a retry that waited for it would hang with it.
            give_up_attempt(context)
        try:
            raise_outcome(event, self.runqy_conn_id, f"{name} ({length})")
        except FRUITLESS as error:
            # A place that is not there just now says nothing of the job.
            if not isinstance(error, NotThere) or isinstance(error, ResultLost):
                give_up_attempt(context)
            raise
