# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""What a worker does for a RunqyBatchOperator: enqueue, wait or defer, and collect."""

from __future__ import annotations

import time
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from runqy_provider.errors import (
    InvalidPayload,
    Misconfigured,
    RunqyError,
    SinkError,
    TooLarge,
    by_name,
)
from runqy_provider.hooks.result import check_returns
from runqy_provider.jobs.attempt_store import attempt_store
from runqy_provider.jobs.batch.deletion import delete_pending
from runqy_provider.jobs.batch.enqueue import begin
from runqy_provider.jobs.batch.manifest import values_in
from runqy_provider.jobs.batch.payloads import Payloads
from runqy_provider.jobs.batch.progress import BatchProgress
from runqy_provider.jobs.batch.run import (
    BatchLimits,
    BatchRun,
    Deferral,
    check_sinks,
)
from runqy_provider.jobs.cancellation import has_ended, is_last_attempt
from runqy_provider.jobs.outcome import TimeLimit, defer, in_seconds, while_unavailable
from runqy_provider.models import (
    DEADLINE,
    DELIVERY_KEY,
    ERROR,
    JOB_KEY,
    REFERENCE,
    VALUE,
    JobRef,
    Reference,
)
from runqy_provider.operators._task import DEFER_AFTER
from runqy_provider.settings import load_settings
from runqy_provider.sinks.registry import sink_from_uri
from runqy_provider.triggers.batch import BatchTrigger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow.sdk import Context

    from runqy_provider.jobs.attempt_store import AttemptStore
    from runqy_provider.operators._task import RunqyTask
    from runqy_provider.settings import Settings


class BatchExecution:
    """One execution of a task, up to its deferral, or from there to the next.

    The connection is fetched once.

    Args:
        task: The operator.
        context: The task instance's.
        read_payloads: Returns the payloads, and whether a text may be the URI of an
            object that has them.
        manifest: See ``RunqyBatchOperator``, also for those below.
        max_in_flight: Of that operator.
        max_failed: Of that operator.
    """

    def __init__(
        self,
        task: RunqyTask,
        context: Context,
        read_payloads: Callable[[Context], tuple[Any, bool]],
        *,
        manifest: str | None,
        max_in_flight: int,
        max_failed: float,
    ) -> None:
        self.task = task
        task.hide_links()
        self._airflow = context
        self._read_payloads = read_payloads
        self._manifest = manifest
        self._max_in_flight = max_in_flight
        self._max_failed = max_failed
        self._settings = load_settings(task.runqy_conn_id)
        self._store = store_of(task, context, self._settings)
        self._batch: BatchProgress | None = None

    def execute(self) -> Any:
        """Enqueue the first jobs, or take over those of the previous attempt; wait."""
        with self._deleting_if_last():
            return self._execute()

    def _execute(self) -> Any:
        task = self.task
        check_arguments(task.returns, self._max_in_flight, self._max_failed)
        sink = sink_from_uri(task.sink or self._settings.connection.sink)
        deadline = time.time() + self._limit.seconds
        with self._payloads() as payloads:
            batch = self._batch = begin(
                self._airflow,
                self._settings,
                self._store,
                payloads,
                sink=sink,
                deadline=deadline,
                deletes=task.delete_abandoned,
            )
            run = self._run(batch)
            manifest = self._written_manifest(batch)
            if manifest is not None:
                return self._return(run, manifest)
            if not batch.enqueued:
                check_sinks(batch, run.manifest, self._settings)
            run.save()
            job = JobRef(batch.batch_id, batch.sink, batch.batch_id, batch.runqy_queue)
            self._airflow["ti"].xcom_push(key=JOB_KEY, value=job.to_xcom())
            slot = DEFER_AFTER if task.defer_after is None else task.defer_after
            return self._go_on(run, payloads, deadline, slot)

    def _written_manifest(self, batch: BatchProgress) -> Reference | None:
        """Return the manifest of an attempt that was killed after it had written it."""
        record = self._store.read() or {}
        is_same = record.get("batch", {}).get("batch_id") == batch.batch_id
        manifest = record.get("manifest") if is_same else None
        return None if manifest is None else Reference.from_xcom(manifest)

    def resume(self, event: dict[str, Any]) -> Any:
        """Enqueue more jobs and wait again; or return the results."""
        with self._deleting_if_last():
            return self._resume(event)

    def _resume(self, event: dict[str, Any]) -> Any:
        if event["kind"] == ERROR:
            raise by_name(event["error"])(event["message"])
        batch = self._batch = self._recorded()
        batch.update(BatchProgress.from_json(event["batch"]))
        run = self._run(batch)
        run.save()
        if not run.needs_payloads(event["kind"]):
            return self._finish(run, event["kind"])
        with self._payloads() as payloads:
            if (payloads.total, payloads.digest) != (batch.total, batch.digest):
                raise InvalidPayload(
                    "The payloads of this task changed while it waited: it has "
                    f"enqueued {batch.enqueued:,} of {batch.total:,}. They must stay "
                    "the same until it ends: if they may change, write them to an "
                    "object first, and give its URI. A retry of the task begins a new "
                    "batch with the payloads that it finds."
                )
            return self._go_on(run, payloads, event["deadline"], timedelta(0))

    def resume_late(self, error: BaseException) -> Any:
        """Return results that arrived while no triggerer ran.

        Raises:
            DeliveryTimeout: Some have not arrived.
        """
        with self._deleting_if_last():
            batch = self._batch = self._recorded()
            try:
                return self._finish(self._run(batch), DEADLINE)
            except RunqyError as late:
                raise late from error

    def _recorded(self) -> BatchProgress:
        """Return the batch as this attempt has recorded it.

        Raises:
            Misconfigured: The record is gone.
        """
        record = self._store.read()
        if record is None:
            raise Misconfigured(
                "The record of this batch is gone: the task state store of Airflow, "
                "or the Redis of the inbox, was emptied while the task waited. Clear "
                "the task to run all its jobs again."
            )
        return BatchProgress.from_json(record["batch"])

    def kill(self) -> None:
        """Delete the jobs of a task that a user ended, if they have not started."""
        task, batch = self.task, self._batch
        if batch is None or not task.delete_abandoned:
            return
        if has_ended(self._airflow["ti"]):
            delete_pending(task.runqy_conn_id, batch, task.log)
        else:
            task.log.info("No job is deleted: the task may run again.")

    @contextmanager
    def _deleting_if_last(self) -> Iterator[None]:
        """Delete the jobs in flight, if an error leaves no attempt to wait for them."""
        try:
            yield
        except RunqyError:
            if self.task.delete_abandoned and is_last_attempt(self._airflow["ti"]):
                self._delete_pending()
            raise

    def _delete_pending(self) -> None:
        task = self.task
        try:
            batch = self._batch or self._recorded()
        except RunqyError as error:
            task.log.warning("No job of the batch is deleted: %s", error)
            return
        if batch.outstanding:
            delete_pending(task.runqy_conn_id, batch, task.log)

    def _run(self, batch: BatchProgress) -> BatchRun:
        """Return the object that runs the batch, and show the link to its queue."""
        task = self.task
        server_url = self._settings.connection.server_url
        task.show_queue_link(server_url, batch.runqy_queue)
        limits = BatchLimits(
            self._max_in_flight,
            self._max_failed,
            task.deferrable,
            task.heartbeat_timeout,
            str(self._limit),
        )
        manifest = self._manifest or batch.sink
        return BatchRun(
            self._settings, self._store, batch, limits, manifest, log=task.log
        )

    def _go_on(
        self, run: BatchRun, payloads: Payloads, deadline: float, slot: timedelta
    ) -> Any:
        task, until_deferral = self.task, time.time() + slot.total_seconds()
        step = run.step(payloads, task.job_options(), deadline, until_deferral)
        if not isinstance(step, Deferral):
            return self._finish(run, step)
        trigger = BatchTrigger(
            runqy_conn_id=task.runqy_conn_id,
            batch=run.batch.in_flight().to_json(),
            until=step.until,
            most_failed=step.most_failed,
            deadline=deadline,
            not_before=time.time() + self._settings.config.settle_seconds,
            heartbeat=in_seconds(task.heartbeat_timeout),
            delete_abandoned=task.delete_abandoned,
        )
        return defer(task, trigger, deadline)

    def _finish(self, run: BatchRun, kind: str) -> Any:
        is_last = is_last_attempt(self._airflow["ti"])
        reference, error = run.collect(kind, is_last=is_last)
        if error is not None:
            self._push_receipt(run.batch, reference)
            raise error
        return self._return(run, reference)

    def _return(self, run: BatchRun, reference: Reference) -> Any:
        """Return the results, or the reference to the manifest."""
        batch, results = run.batch, run.results
        self.task.log.info(
            "Batch %s: %s. Its manifest is %s.", batch.batch_id, batch, reference.uri
        )
        self._push_receipt(batch, reference)
        try:
            sink = sink_from_uri(run.manifest)
            self.task.show_result_link(results.link(sink, reference))
        except SinkError as error:
            # The results are available: a missing link must not fail the task.
            self.task.log.warning("No link to the manifest could be made: %s", error)
        returns = self.task.returns
        values = None
        if returns != REFERENCE:
            values = while_unavailable(lambda: values_in(results, reference))
        if values is not None:
            return values
        if returns == VALUE:
            raise TooLarge(
                f"returns='value', but XCom cannot hold the {batch.total:,} results: "
                "together they have more than [runqy] xcom_limit bytes, or hold "
                f"something that XCom changes. They are in {reference.uri}: use "
                "returns='auto' and read them with RunqyResultHook.read_batch."
            )
        return reference.to_xcom()

    def _payloads(self) -> Payloads:
        given, may_be_uri = self._read_payloads(self._airflow)
        return Payloads.read(
            given, self.task.runqy_queue, self._settings, may_be_uri=may_be_uri
        )

    @property
    def _limit(self) -> TimeLimit:
        return TimeLimit.of(self.task, "delivery_timeout", self.task.delivery_timeout)

    def _push_receipt(self, batch: BatchProgress, reference: Reference) -> None:
        receipt = {
            "delivery_id": batch.batch_id,
            "where": reference.uri,
            "content_type": reference.content_type,
            "size": reference.size,
            "total": batch.total,
            "completed": batch.completed,
            "failed": len(batch.failed),
        }
        self._airflow["ti"].xcom_push(key=DELIVERY_KEY, value=receipt)
        self.task.add_to_outlets(self._airflow, reference)


def store_of(task: RunqyTask, context: Context, settings: Settings) -> AttemptStore:
    """Return where the progress of a batch is recorded.

    Raises:
        Misconfigured: It cannot be recorded.
    """
    store = attempt_store(context, settings)
    if store is None:
        raise Misconfigured(
            "A batch needs a record of how far it is, or a retry would enqueue all "
            "jobs again; but this Airflow keeps no such record. Use Airflow 3.3 or "
            "newer, set up webhooks, or set redis_conn_id of connection "
            f"{task.runqy_conn_id!r} to a Redis connection of your own."
        )
    return store


def check_arguments(returns: str, max_in_flight: int, max_failed: float) -> None:
    """Check the arguments of a task.

    Raises:
        Misconfigured: One of them is not valid.
    """
    check_returns(returns)
    if max_in_flight < 1:
        raise Misconfigured(f"max_in_flight must be 1 or more, not {max_in_flight!r}.")
    is_share = isinstance(max_failed, float)
    is_valid = max_failed >= 0 and not (is_share and max_failed >= 1)
    if isinstance(max_failed, bool) or not is_valid:
        raise Misconfigured(
            "max_failed must be a number of jobs, or a share of all of them as a float "
            f"from 0.0 to below 1.0, not {max_failed!r}."
        )
