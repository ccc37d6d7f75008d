# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""What a worker does for a RunqyBatchOperator: enqueue, wait or defer, and collect."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

from runqy_provider.context import load_context
from runqy_provider.errors import (
    InvalidPayload,
    Misconfigured,
    RunqyError,
    SinkError,
    TooLarge,
    by_name,
)
from runqy_provider.hooks.result import RunqyResultHook
from runqy_provider.jobs.batch.begin import begin
from runqy_provider.jobs.batch.deletion import delete_pending
from runqy_provider.jobs.batch.enqueue import BatchEnqueuer
from runqy_provider.jobs.batch.manifest import BatchManifest, values_in
from runqy_provider.jobs.batch.outcome import not_ended, silent, too_many_failed
from runqy_provider.jobs.batch.payloads import Payloads
from runqy_provider.jobs.batch.progress import BatchProgress
from runqy_provider.jobs.batch.wait import find_refusal, wait_for_batch_in_slot
from runqy_provider.jobs.cancellation import has_ended, is_last_attempt
from runqy_provider.jobs.deferral import TimeLimit, defer, in_seconds
from runqy_provider.jobs.received import while_unavailable
from runqy_provider.jobs.telemetry import count_batch
from runqy_provider.models import (
    ARRIVED,
    DEADLINE,
    DELIVERY_KEY,
    ERROR,
    JOB_KEY,
    REFERENCE,
    SILENT,
    VALUE,
    JobRef,
    Reference,
)
from runqy_provider.operators._batch_checks import (
    check_arguments,
    check_sinks,
    store_of,
)
from runqy_provider.operators._task_fields import (
    add_to_outlets,
    hide_links,
    job_options,
    show_queue_link,
    show_result_link,
)
from runqy_provider.sinks.registry import sink_from_uri
from runqy_provider.triggers.batch import BatchTrigger

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow.sdk import Context

    from runqy_provider.operators.runqy_batch import RunqyBatchOperator


#: How much a share of a number may be too small, as a float.
SHARE_ERROR = 1e-6


class BatchExecution:
    """One execution of a task, up to its deferral, or from there to the next.

    The connection is fetched once.

    Args:
        task: The operator.
        context: The task instance's.
    """

    def __init__(self, task: RunqyBatchOperator, context: Context) -> None:
        self.task = task
        hide_links(task)
        self._airflow = context
        self._context = load_context(task.runqy_conn_id)
        self._store = store_of(task, context, self._context)
        self._batch: BatchProgress | None = None

    def execute(self) -> Any:
        """Enqueue the first jobs, or go on with those of the attempt before; wait."""
        with self._deleting_if_last():
            return self._execute()

    def _execute(self) -> Any:
        task = self.task
        check_arguments(task)
        sink = sink_from_uri(task.sink or self._context.connection.sink)
        deadline = time.time() + self._limit.seconds
        with self._payloads() as payloads:
            batch = self._batch = begin(
                self._airflow,
                self._context,
                self._store,
                payloads,
                sink=sink,
                deadline=deadline,
                deletes=task.delete_abandoned,
            )
            manifest = self._written_manifest(batch)
            if manifest is not None:
                results = RunqyResultHook.from_context(self._context)
                return self._return(batch, results, manifest)
            if not batch.enqueued:
                check_sinks(batch, self._manifest_sink(batch), self._context)
            self._save(batch)
            job = JobRef(batch.batch_id, batch.sink, batch.batch_id, batch.runqy_queue)
            self._airflow["ti"].xcom_push(key=JOB_KEY, value=job.to_xcom())
            self._link_queue(batch)
            slot = task.defer_after.total_seconds()
            return self._run(batch, payloads, deadline, slot)

    def _written_manifest(self, batch: BatchProgress) -> Reference | None:
        """Return the manifest that an attempt has written that was killed after it."""
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
        self._save(batch)
        self._link_queue(batch)
        if event["kind"] != ARRIVED or not batch.left or self._has_failed(batch):
            return self._finish(batch, event["kind"])
        with self._payloads() as payloads:
            if (payloads.total, payloads.digest) != (batch.total, batch.digest):
                raise InvalidPayload(
                    "The payloads of this task are not those of which it has enqueued "
                    f"{batch.enqueued:,} of {batch.total:,}: while it waited they have "
                    "changed. They must be the same until it ends: write those that "
                    "change to an object, and give its URI. A retry of the task begins "
                    "a new batch with the payloads that it finds."
                )
            return self._run(batch, payloads, event["deadline"], 0.0)

    def resume_late(self, error: BaseException) -> Any:
        """Return results that arrived while no triggerer ran.

        Raises:
            DeliveryTimeout: Some have not arrived.
        """
        with self._deleting_if_last():
            batch = self._batch = self._recorded()
            try:
                return self._finish(batch, DEADLINE)
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

    def _run(
        self, batch: BatchProgress, payloads: Payloads, deadline: float, slot: float
    ) -> Any:
        """Enqueue what may be in flight, and wait, until all have ended.

        Args:
            batch: The batch.
            payloads: All its payloads.
            deadline: When to give up, in seconds since 1970.
            slot: How many seconds to wait in the slot before the task defers.
        """
        task = self.task
        enqueuer = BatchEnqueuer(
            self._context, batch, job_options(self.task), lambda: self._save(batch)
        )
        until_deferral = time.time() + slot
        while True:
            if not self._has_failed(batch):
                enqueuer.enqueue(payloads, task.max_in_flight, deadline)
            if not batch.left and not batch.outstanding:
                return self._finish(batch, ARRIVED)
            until = task.max_in_flight // 2 if batch.left else 0
            end = min(deadline, until_deferral) if task.deferrable else deadline
            kind = DEADLINE
            if not task.deferrable or time.time() < end:
                kind = wait_for_batch_in_slot(
                    self._context,
                    batch,
                    until=until,
                    most_failed=self._most_failed(batch),
                    deadline=end,
                    heartbeat_timeout=in_seconds(task.heartbeat_timeout),
                    monitor=not task.deferrable,
                    log=task.log,
                )
                self._save(batch)
            if kind == ARRIVED and batch.left and not self._has_failed(batch):
                continue
            if kind == ARRIVED or time.time() >= deadline or not task.deferrable:
                return self._finish(batch, kind)
            return defer(task, self._trigger(batch, until, deadline), deadline)

    def _trigger(
        self, batch: BatchProgress, until: int, deadline: float
    ) -> BatchTrigger:
        return BatchTrigger(
            runqy_conn_id=self.task.runqy_conn_id,
            batch=batch.in_flight().to_json(),
            until=until,
            most_failed=self._most_failed(batch),
            deadline=deadline,
            not_before=time.time() + self._context.config.settle_seconds,
            heartbeat=in_seconds(self.task.heartbeat_timeout),
            delete_abandoned=self.task.delete_abandoned,
        )

    def _finish(self, batch: BatchProgress, kind: str) -> Any:
        if kind != ARRIVED:
            # Some may have arrived just now, or while no triggerer ran.
            wait_for_batch_in_slot(
                self._context, batch, until=0, most_failed=batch.total, deadline=0.0
            )
        if batch.left or batch.outstanding:
            self._raise_not_ended(batch, kind)
        results = RunqyResultHook.from_context(self._context)
        manifest = BatchManifest(batch, results)
        sink = self._manifest_sink(batch)
        reference = while_unavailable(lambda: manifest.write(sink))
        has_failed = self._has_failed(batch)
        # Deliveries are dropped only where no retry will need them; one that comes
        # after that finds the manifest.
        self._save(batch, None if has_failed else reference)
        count_batch(
            batch.job(0), 0 if has_failed else batch.completed, len(batch.failed)
        )
        if has_failed:
            self._push_receipt(batch, reference)
            raise too_many_failed(batch, self.task.max_failed, reference)
        try:
            manifest.forget(reference)
        except SinkError as error:
            # The manifest has the results: what stays is not worth a failure.
            self.task.log.warning(
                "Deliveries stay in the inbox until they expire: %s", error
            )
        return self._return(batch, results, reference)

    def _return(
        self, batch: BatchProgress, results: RunqyResultHook, reference: Reference
    ) -> Any:
        """Return the results, or the reference to the manifest."""
        self.task.log.info(
            "Batch %s: %s. Its manifest is %s.", batch.batch_id, batch, reference.uri
        )
        self._push_receipt(batch, reference)
        try:
            sink = sink_from_uri(self._manifest_sink(batch))
            show_result_link(self.task, results.link(sink, reference))
        except SinkError as error:
            # The results are there: a missing link is not worth a failure.
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

    def _raise_not_ended(self, batch: BatchProgress, kind: str) -> NoReturn:
        task, refusal = self.task, find_refusal(self._context, batch)
        if self._has_failed(batch):
            error: RunqyError = too_many_failed(batch, task.max_failed)
        elif kind == SILENT:
            if not is_last_attempt(self._airflow["ti"]):
                self._give_up(batch)
            error = silent(
                batch, f"heartbeat_timeout ({task.heartbeat_timeout})", refusal
            )
        else:
            error = not_ended(batch, str(self._limit), self._context, refusal)
        self._save(batch)
        raise error

    def _give_up(self, batch: BatchProgress) -> None:
        """Let a retry enqueue jobs again that seem to hang, or it would hang, too.

        Where pending jobs cannot be deleted, as over HTTP, the retry waits for all of
        them: those would run twice.
        """
        if delete_pending(self.task.runqy_conn_id, batch, self.task.log):
            for index in list(batch.outstanding):
                batch.on_ended(index, "It gave no sign of life.")

    def _payloads(self) -> Payloads:
        given = self.task.read_payloads(self._airflow)
        return Payloads.read(
            given,
            self.task.runqy_queue,
            self._context,
            may_be_uri=self.task.may_be_uri,
        )

    @property
    def _limit(self) -> TimeLimit:
        return TimeLimit.of(self.task, "delivery_timeout", self.task.delivery_timeout)

    def _most_failed(self, batch: BatchProgress) -> int:
        """Return how many jobs may fail."""
        given = self.task.max_failed
        # As 0.29 * 100 is 28.999999999999996.
        is_share = isinstance(given, float)
        return int(given * batch.total + SHARE_ERROR) if is_share else int(given)

    def _has_failed(self, batch: BatchProgress) -> bool:
        return len(batch.failed) > self._most_failed(batch)

    def _manifest_sink(self, batch: BatchProgress) -> str:
        return self.task.manifest or batch.sink

    def _save(self, batch: BatchProgress, manifest: Reference | None = None) -> None:
        record: dict[str, Any] = {"batch": batch.to_json()}
        if manifest is not None:
            record["manifest"] = manifest.to_xcom()
        self._store.write(record, batch.expires)

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
        add_to_outlets(self.task, self._airflow, reference)

    def _link_queue(self, batch: BatchProgress) -> None:
        """Set what Airflow reads for the link each time that this process ends."""
        server_url = self._context.connection.server_url
        show_queue_link(self.task, server_url, batch.runqy_queue)
