# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Run a job on runqy and bring its result home."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk import BaseOperator, Context
from airflow.sdk.configuration import conf

from runqy_delivery.wire import FAILED
from runqy_provider.errors import (
    JobFailed,
    JobVanished,
    Misconfigured,
    RunqyError,
    SinkError,
)
from runqy_provider.hooks.access import get_access
from runqy_provider.hooks.identity import delivery_id_of
from runqy_provider.hooks.outcome import ARRIVED, DEADLINE, outcome_of
from runqy_provider.hooks.result import RunqyResultHook
from runqy_provider.hooks.runqy import RunqyHook
from runqy_provider.hooks.submission import Submission, submit
from runqy_provider.links.result import ResultLink
from runqy_provider.reference import is_reference
from runqy_provider.settings import DEFAULT_CONN_ID
from runqy_provider.sinks.parse import parse_sink
from runqy_provider.triggers.delivery import DeliveryTrigger

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from runqy_provider.sinks.base import Access
    from runqy_provider.sinks.parse import SinkArgument

#: How long a delivery is waited for where the task does not say.
DELIVERY_TIMEOUT = timedelta(hours=24)

#: How long a task waits in its slot before it defers, where it does not say. Of 200
#: mapped tasks with jobs of half a second, a wait of one second saved a quarter of the
#: time and of the slots, and two seconds little more (benchmarks/defer_after.py).
DEFER_AFTER = timedelta(seconds=1)

#: Airflow's own timeout of the deferral comes this much later than our deadline,
#: which has better words.
BACKSTOP = timedelta(minutes=2)

#: XCom keys: what was enqueued, and how it came back.
JOB_KEY, DELIVERY_KEY = "runqy_job", "runqy_delivery"


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
    :param job_timeout: Timeout that runqy stores with the job; it does not enforce it.
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
        job_timeout: timedelta | None = None,
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
        self.job_timeout = job_timeout
        self.download_url: str | None = None
        self._submission: Submission | None = None

    def execute(self, context: Context) -> Any:
        """Enqueue the job; return its result if it is quick, else defer."""
        ti = context["ti"]
        access = get_access(self.runqy_conn_id)
        deadline = self._deadline()
        submission = self._submission = self._submit(context, access, deadline)
        ti.xcom_push(key=JOB_KEY, value=submission.to_xcom())
        self.log.info(
            "Enqueued job %s in queue %r; its result goes to %r as delivery %s.",
            submission.job_id,
            submission.runqy_queue,
            submission.sink,
            submission.delivery_id,
        )
        patience = deadline
        if self.deferrable:
            patience = min(deadline, time.time() + self.defer_after.total_seconds())
        event = self._trigger(submission, patience).wait_here(access)
        if not self.deferrable or event["event"] != DEADLINE:
            return self._finish(context, event)
        settle = conf.getfloat("runqy", "settle_seconds")
        self.defer(
            trigger=self._trigger(submission, deadline, time.time() + settle),
            method_name="execute_complete",
            timeout=timedelta(seconds=max(0.0, deadline - time.time())) + BACKSTOP,
        )
        return None

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """Return the result that the trigger saw arrive."""
        return self._finish(context, event)

    def on_kill(self) -> None:
        """Delete the job of a killed task, if runqy has not begun it."""
        if self._submission is None:
            return
        job_id, queue = self._submission.job_id, self._submission.runqy_queue
        try:
            with RunqyHook(self.runqy_conn_id, retry_for=0) as hook:
                deleted = hook.delete_job(queue, job_id)
        except JobVanished:
            self.log.info("Job %s is gone from runqy already.", job_id)
        except RunqyError as error:
            self.log.warning("Job %s was not deleted: %s", job_id, error)
        else:
            words = "was deleted" if deleted else "runs on: runqy cannot stop a job"
            self.log.info("Job %s %s.", job_id, words)

    def _deadline(self) -> float:
        limits = [self.delivery_timeout]
        if self.execution_timeout is not None:
            # Airflow does not count execution_timeout while a task is deferred.
            limits.append(self.execution_timeout)
        shortest = min(limits)
        if shortest <= timedelta(0):
            raise Misconfigured("delivery_timeout must be longer than zero.")
        return time.time() + shortest.total_seconds()

    def _submit(self, context: Context, access: Access, deadline: float) -> Submission:
        ti = context["ti"]
        timeout = self.job_timeout
        index = -1 if ti.map_index is None else ti.map_index
        with RunqyHook(self.runqy_conn_id) as hook:
            return submit(
                hook,
                access,
                parse_sink(self.sink or access.settings.sink),
                runqy_queue=self.runqy_queue,
                payload=self.payload,
                delivery_id=delivery_id_of(
                    ti.dag_id, ti.run_id, ti.task_id, index, ti.try_number
                ),
                deadline=deadline,
                job_timeout=None if timeout is None else timeout.total_seconds(),
            )

    def _trigger(
        self, submission: Submission, deadline: float, not_before: float = 0.0
    ) -> DeliveryTrigger:
        return DeliveryTrigger(
            runqy_conn_id=self.runqy_conn_id,
            delivery_id=submission.delivery_id,
            sink=submission.sink,
            deadline=deadline,
            not_before=not_before,
            job_id=submission.job_id,
            runqy_queue=submission.runqy_queue,
        )

    def _finish(self, context: Context, event: dict[str, Any]) -> Any:
        if event["event"] != ARRIVED:
            return outcome_of(event, self.runqy_conn_id)
        known = ("delivery_id", "job_id", "status", "where", "delivered_at")
        receipt = {name: event[name] for name in known}
        try:
            value = outcome_of(event, self.runqy_conn_id)
            if is_reference(value):
                self.download_url = self._link(event, value)
                receipt["download_url"] = self.download_url
        except JobFailed:
            # Some sinks only tell that there is something; what, is read just now.
            receipt["status"] = FAILED
            raise
        finally:
            context["ti"].xcom_push(key=DELIVERY_KEY, value=receipt)
        return value

    def _link(self, event: dict[str, Any], reference: dict[str, Any]) -> str | None:
        results = RunqyResultHook(self.runqy_conn_id)
        try:
            return results.link(parse_sink(event["sink"]), reference)
        except SinkError as error:
            # The result is home: a link for people is no reason to fail.
            self.log.warning("There is no link to the result: %s", error)
            return None
