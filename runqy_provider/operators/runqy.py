# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Run a job on runqy and return its result.

This module holds what a DAG file needs; ``_execution.py`` holds what a worker does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from runqy_provider.airflow_compat import TaskDeferralTimeout
from runqy_provider.errors import InvalidPayload
from runqy_provider.operators._task import RunqyTask, check_texts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.sdk import Context

    from runqy_provider.operators._execution import Execution


class RunqyOperator(RunqyTask):
    """Enqueue a job on runqy, defer, and return its result.

    The task returns the result itself if it is JSON of up to ``[runqy] xcom_limit``
    bytes, else a reference that ``RunqyResultHook.read`` opens. XCom ``runqy_job`` says
    what was enqueued, ``runqy_delivery`` how the result was delivered.

    :param runqy_queue: Queue of the job: ``parent.sub``, or ``parent`` for its default
        sub-queue. (templated)
    :param payload: What the handler receives; a JSON object. (templated)
    :param sink: Where the result is delivered: ``webhook``, ``s3://bucket/prefix``,
        another of ``docs/how-to/sinks``, a Sink, or a list of them, of which the first
        holds the result and the others announce it; by default the connection's.
        (templated)
    :param runqy_conn_id: The runqy connection. (templated)
    :param deferrable: Free the worker slot while waiting; False waits in the slot.
    :param delivery_timeout: How long to wait for the result, time in the queue
        included. ``execution_timeout`` shortens it.
    :param defer_after: How long to wait in the slot before deferring. Tasks with short
        jobs then end without the triggerer. None: 1 s; 5 s if a worker must end the
        task, as its second start takes about as long.
    :param heartbeat_timeout: How long a job that has started may be silent
        (``runqy_delivery.progress``) before the wait for it ends.
    :param job_timeout: Timeout that runqy stores with the job; it does not enforce it.
    :param max_retry: How often runqy runs a failed job again; needs the transport
        ``redis``, as the next two do. None: runqy's default, 3.
    :param active_timeout: How long the job may run until runqy counts it as failed, and
        may run it again; its handler is not stopped.
    :param ttl_completed: How long runqy keeps the result, if its queue stores it.
    :param reattach: Let a retry wait for the job of the previous attempt, if that asked
        for the same and has not failed; False enqueues a new job at every attempt.
    :param end_from_trigger: Whether the triggerer ends the task when its result has
        arrived, which saves a second start of a worker. None: if nothing is lost by it;
        True: always, and if something would be lost, the task fails before anything is
        enqueued; False: never.
    :param returns: What the task returns: ``auto``, the result itself if XCom can hold
        it, else a reference; ``value``, the result, and the task fails if it is too
        large; ``reference``, always a reference.
    :param delete_abandoned: Delete the job, if it has not started, when no attempt
        waits for it any more: a user ends the task, the last attempt fails, or a later
        one enqueues another job. Needs the connection's admin key.
    """

    template_fields: Sequence[str] = ("runqy_queue", "payload", "sink", "runqy_conn_id")
    template_fields_renderers: ClassVar[dict[str, str]] = {"payload": "json"}

    def __init__(
        self,
        *,
        payload: Mapping[str, Any] | None = None,
        reattach: bool = True,
        end_from_trigger: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if isinstance(payload, (list, tuple, set, int, float, bytes)):
            raise InvalidPayload(
                f"The payload of task {self.task_id!r} is a {type(payload).__name__}. "
                "It must be an object: payload={'input': ...}. For a job for each item "
                "of a list, use RunqyBatchOperator(payloads=...) or .expand()."
            )
        self.payload = {} if payload is None else payload
        self.reattach = reattach
        self.end_from_trigger = end_from_trigger
        self._execution: Execution | None = None

    def execute(self, context: Context) -> Any:
        """Enqueue the job, or find that of the previous attempt; wait, or defer."""
        execution = self._execution = self._start()
        return execution.execute(
            context,
            self.payload,
            reattach=self.reattach,
            end_from_trigger=self.end_from_trigger,
        )

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """Return the result of the delivery for which the trigger fired."""
        return self._start().complete(context, event)

    def resume_execution(
        self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context
    ) -> Any:
        """Continue after the wait; explain if Airflow ended the wait."""
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except TaskDeferralTimeout as error:
            return self._start().complete_late(context, error)

    def on_kill(self) -> None:
        """Delete the job of a task that a user ended, if runqy has not started it."""
        if self._execution is not None:
            self._execution.kill()

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> Any:  # noqa: ARG002 - OpenLineage's signature
        """Return what OpenLineage records of this task: its job and its result.

        Returns:
            An ``OperatorLineage``; an empty one if no result has arrived.
        """
        from runqy_provider.jobs.lineage import (  # noqa: PLC0415 - needs the OpenLineage provider
            lineage_of,
        )

        return lineage_of(self.receipt)

    def _start(self) -> Execution:
        from runqy_provider.operators._execution import (  # noqa: PLC0415 - not needed to parse a DAG
            Execution,
        )

        check_texts(self, ("runqy_queue", "runqy_conn_id"), ("sink",))
        return Execution(self, RunqyOperator)
