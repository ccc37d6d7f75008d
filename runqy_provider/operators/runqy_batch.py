# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Run many jobs on runqy from one task, and return their results.

This module holds what a DAG file needs; ``_batch_execution.py`` holds what a worker
does.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from runqy_provider.airflow_compat import TaskDeferralTimeout
from runqy_provider.operators._task import RunqyTask, check_texts

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from airflow.sdk import Context

    from runqy_provider.models import Reference
    from runqy_provider.operators._batch_execution import BatchExecution

#: How many jobs of a task are in flight by default.
MAX_IN_FLIGHT = 20_000


class RunqyBatchOperator(RunqyTask):
    """Enqueue many jobs on runqy, defer, and return their results.

    One task, one trigger, any number of jobs. The task returns a list with the result
    of each job, in the order of the payloads, if XCom can hold it; else a reference to
    the manifest, which ``RunqyResultHook.read_batch`` reads. XCom ``runqy_delivery``
    says how many jobs completed and failed, and where the manifest is.

    A retry of the task continues from the previous attempt: it waits for the jobs in
    flight, and enqueues those that have failed, and those that were not enqueued.

    :param runqy_queue: Queue of the jobs: ``parent.sub``, or ``parent`` for its default
        sub-queue. (templated)
    :param payloads: What each handler receives: JSON objects in a list or another
        iterable, such as the output of another task; a text with a JSON list; or the
        URI of a JSON Lines file, one payload per line, ``s3://bucket/inputs.jsonl``.
        When the task resumes, they must be the same. (templated)
    :param sink: Where each result is delivered; see ``RunqyOperator``. (templated)
    :param manifest: The sink for the manifest, which has one line per job: an object
        store, or ``webhook`` for the inbox; by default that of the results. (templated)
    :param runqy_conn_id: The runqy connection. (templated)
    :param max_in_flight: How many jobs are in flight at most. When half of them have
        ended, the task resumes and enqueues others.
    :param max_failed: How many jobs may fail: a number, or a share of all of them as a
        float below 1. If more fail, the task fails.
    :param deferrable: Free the worker slot while waiting; False waits in the slot.
    :param delivery_timeout: How long to wait for all results. ``execution_timeout``
        shortens it.
    :param defer_after: How long to wait in the slot before the first deferral.
    :param heartbeat_timeout: How long all jobs may be silent, without a delivery or
        progress, before the wait ends.
    :param job_timeout: See ``RunqyOperator``, also for ``max_retry``,
        ``active_timeout`` and ``ttl_completed``.
    :param returns: What the task returns: ``auto``, the list if XCom can hold it;
        ``value``, the list, and the task fails if it is too large; ``reference``,
        always the reference to the manifest.
    :param delete_abandoned: Delete the jobs that have not started, when no attempt
        waits for them any more: a user ends the task, or the last attempt fails. Needs
        runqy's own Redis in the connection.
    """

    template_fields: Sequence[str] = (
        "runqy_queue",
        "payloads",
        "sink",
        "manifest",
        "runqy_conn_id",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"payloads": "json"}

    def __init__(
        self,
        *,
        payloads: Iterable[Mapping[str, Any]] | Reference | str,
        manifest: str | None = None,
        max_in_flight: int = MAX_IN_FLIGHT,
        max_failed: float = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        # An iterator could be read only once, and would differ at each parse.
        self.payloads = list(payloads) if isinstance(payloads, Iterator) else payloads
        # Output of another task must not name a file that is read here.
        literal = payloads.partition("{")[0] if isinstance(payloads, str) else ""
        self._may_be_uri = "://" in literal
        self.manifest = manifest
        self.max_in_flight = max_in_flight
        self.max_failed = max_failed
        self._execution: BatchExecution | None = None

    def execute(self, context: Context) -> Any:
        """Enqueue the first jobs, or take over those of the previous attempt; wait."""
        return self._start(context).execute()

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """Enqueue more jobs and wait again; or return the results."""
        return self._start(context).resume(event)

    def resume_execution(
        self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context
    ) -> Any:
        """Continue after the wait; look once more if Airflow ended the wait."""
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except TaskDeferralTimeout as error:
            return self._start(context).resume_late(error)

    def on_kill(self) -> None:
        """Delete the jobs of a task that a user ended, if they have not started."""
        if self._execution is not None:
            self._execution.kill()

    def read_payloads(self, context: Context) -> tuple[Any, bool]:  # noqa: ARG002 - for the decorator
        """Return the payloads, and whether a text may be the URI of an object.

        Called again when the task resumes.
        """
        return self.payloads, self._may_be_uri

    def _start(self, context: Context) -> BatchExecution:
        from runqy_provider.operators._batch_execution import (  # noqa: PLC0415 - not needed to parse a DAG
            BatchExecution,
        )

        check_texts(self, ("runqy_queue", "runqy_conn_id"), ("sink", "manifest"))
        self._execution = BatchExecution(
            self,
            context,
            self.read_payloads,
            manifest=self.manifest,
            max_in_flight=self.max_in_flight,
            max_failed=self.max_failed,
        )
        return self._execution
