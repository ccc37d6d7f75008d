# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The steps of a batch: enqueue, wait in the slot, defer, collect, fail.

``BatchRun`` does one execution of a task. Of Airflow it knows only the task's logger:
it says what to do, and the operator defers or returns.
"""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runqy_provider.errors import (
    BatchFailed,
    DeliveryTimeout,
    HeartbeatTimeout,
    Misconfigured,
    RunqyError,
    SinkError,
)
from runqy_provider.hooks.result import RunqyResultHook
from runqy_provider.jobs.batch.deletion import delete_pending
from runqy_provider.jobs.batch.enqueue import BatchEnqueuer
from runqy_provider.jobs.batch.manifest import BatchManifest
from runqy_provider.jobs.batch.wait import (
    find_refusal,
    targets_of_batch,
    wait_for_batch,
)
from runqy_provider.jobs.outcome import in_seconds, while_unavailable
from runqy_provider.jobs.telemetry import count_batch
from runqy_provider.models import ARRIVED, DEADLINE, SILENT, Reference
from runqy_provider.sinks.registry import sink_from_uri
from runqy_provider.waiters.waiter import run_wait

if TYPE_CHECKING:
    from datetime import timedelta

    from runqy_provider.client.models import JobOptions
    from runqy_provider.jobs.attempt_store import AttemptStore
    from runqy_provider.jobs.batch.payloads import Payloads
    from runqy_provider.jobs.batch.progress import BatchProgress
    from runqy_provider.settings import Settings

#: Rounding error allowed for a share, which is a float.
SHARE_ERROR = 1e-6


@dataclass(frozen=True)
class BatchLimits:
    """What a task allows its batch; see ``RunqyBatchOperator``.

    Attributes:
        max_in_flight: How many jobs are in flight at most.
        max_failed: How many jobs may fail, or which share of all of them.
        deferrable: Whether the task defers while it waits.
        heartbeat_timeout: How long the jobs may be silent.
        time_limit: Name and length of the limit of the wait, for messages.
    """

    max_in_flight: int
    max_failed: float
    deferrable: bool
    heartbeat_timeout: timedelta | None
    time_limit: str

    def most_failed(self, batch: BatchProgress) -> int:
        """Return how many jobs may fail."""
        given = self.max_failed
        # Because 0.29 * 100 is 28.999999999999996.
        is_share = isinstance(given, float)
        return int(given * batch.total + SHARE_ERROR) if is_share else int(given)

    def has_failed(self, batch: BatchProgress) -> bool:
        """Return whether more jobs have failed than may."""
        return len(batch.failed) > self.most_failed(batch)


@dataclass(frozen=True)
class Deferral:
    """The wait must go on in the triggerer.

    Attributes:
        until: Until at most so many jobs are in flight.
        most_failed: Or until more than so many have failed.
    """

    until: int
    most_failed: int


class BatchRun:
    """One execution of a batch, up to its deferral or to its end.

    Args:
        settings: The runqy connection and the options.
        store: Where the progress is recorded.
        batch: The batch.
        limits: What the task allows.
        manifest: URI of the sink for the manifest.
        log: The task's logger.
    """

    def __init__(
        self,
        settings: Settings,
        store: AttemptStore,
        batch: BatchProgress,
        limits: BatchLimits,
        manifest: str,
        *,
        log: Any,
    ) -> None:
        self.batch = batch
        self.manifest = manifest
        self.results = RunqyResultHook.from_settings(settings)
        self._settings, self._store = settings, store
        self._limits, self._log = limits, log

    def save(self, manifest: Reference | None = None) -> None:
        """Record the progress, and the manifest once there is one.

        Raises:
            SinkUnavailable: The store is unavailable.
        """
        record: dict[str, Any] = {"batch": self.batch.to_json()}
        if manifest is not None:
            record["manifest"] = manifest.to_xcom()
        self._store.write(record, self.batch.expires)

    def step(
        self,
        payloads: Payloads,
        options: JobOptions,
        deadline: float,
        until_deferral: float,
    ) -> Deferral | str:
        """Enqueue what may be in flight, and wait, until all have ended.

        Args:
            payloads: All payloads of the batch.
            options: The other options of each job.
            deadline: When to give up, in seconds since 1970.
            until_deferral: When the task defers, if its jobs have not ended by then.

        Returns:
            That the task is to defer; or how the wait ended: ARRIVED, DEADLINE or
            SILENT.
        """
        batch, limits = self.batch, self._limits
        enqueuer = BatchEnqueuer(self._settings, batch, options, self.save)
        while True:
            if not limits.has_failed(batch):
                enqueuer.enqueue(payloads, limits.max_in_flight, deadline)
            if not batch.left and not batch.outstanding:
                return ARRIVED
            until = limits.max_in_flight // 2 if batch.left else 0
            end = min(deadline, until_deferral) if limits.deferrable else deadline
            kind = DEADLINE
            if not limits.deferrable or time.time() < end:
                kind = self._wait_in_slot(until, end)
            if kind == ARRIVED and batch.left and not limits.has_failed(batch):
                continue
            if kind == ARRIVED or time.time() >= deadline or not limits.deferrable:
                return kind
            return Deferral(until, limits.most_failed(batch))

    def _wait_in_slot(self, until: int, end: float) -> str:
        wait = wait_for_batch(
            self._settings,
            self.batch,
            until=until,
            most_failed=self._limits.most_failed(self.batch),
            deadline=end,
            heartbeat_timeout=in_seconds(self._limits.heartbeat_timeout),
            monitor=not self._limits.deferrable,
            log=self._log,
        )
        kind = run_wait(wait)
        self.save()
        return kind

    def needs_payloads(self, kind: str) -> bool:
        """Return whether jobs are left to enqueue after the wait."""
        is_over = kind != ARRIVED or self._limits.has_failed(self.batch)
        return bool(self.batch.left) and not is_over

    def collect(
        self, kind: str, *, is_last: bool
    ) -> tuple[Reference, BatchFailed | None]:
        """Write the manifest when the wait has ended.

        Args:
            kind: How it ended.
            is_last: Whether this is the last attempt of the task.

        Returns:
            Where the manifest is; and the error if too many jobs have failed.

        Raises:
            RunqyError: Not all jobs have ended.
        """
        batch = self.batch
        if kind != ARRIVED:
            # Some may have arrived just now, or while no triggerer ran.
            run_wait(
                wait_for_batch(
                    self._settings,
                    batch,
                    until=0,
                    most_failed=batch.total,
                    deadline=0.0,
                )
            )
        if batch.left or batch.outstanding:
            error = self._not_ended(kind, is_last=is_last)
            self.save()
            raise error
        manifest = BatchManifest(batch, self.results)
        reference = while_unavailable(lambda: manifest.write(self.manifest))
        has_failed = self._limits.has_failed(batch)
        # Deliveries are dropped only if no retry will need them; a later attempt finds
        # the manifest.
        self.save(None if has_failed else reference)
        completed = 0 if has_failed else batch.completed
        count_batch(batch.job(0), completed, len(batch.failed))
        if has_failed:
            return reference, too_many_failed(batch, self._limits.max_failed, reference)
        try:
            manifest.forget(reference)
        except SinkError as error:
            # The manifest has the results: a failed cleanup must not fail the task.
            self._log.warning(
                "Deliveries stay in the inbox until they expire: %s", error
            )
        return reference, None

    def _not_ended(self, kind: str, *, is_last: bool) -> RunqyError:
        batch, limits = self.batch, self._limits
        refusal = find_refusal(self._settings, batch)
        if limits.has_failed(batch):
            return too_many_failed(batch, limits.max_failed)
        if kind == SILENT:
            if not is_last:
                self._give_up()
            silence = f"heartbeat_timeout ({limits.heartbeat_timeout})"
            return silent(batch, silence, refusal)
        return not_ended(batch, limits.time_limit, self._settings, refusal)

    def _give_up(self) -> None:
        """Let a retry enqueue jobs again that seem to hang, instead of waiting.

        If pending jobs cannot be deleted, as over HTTP, the retry waits for all jobs:
        the pending ones would run twice.
        """
        conn_id = self._settings.connection.conn_id
        if delete_pending(conn_id, self.batch, self._log):
            for index in list(self.batch.outstanding):
                self.batch.on_ended(index, "It gave no sign of life.")


def check_sinks(batch: BatchProgress, manifest: str, settings: Settings) -> None:
    """Check that results can be waited for, and that the manifest can be written.

    Args:
        batch: The batch.
        manifest: URI of the sink for the manifest.
        settings: The runqy connection and the options.

    Raises:
        Misconfigured: The sinks cannot do that.
        SinkError: The manifest cannot be written.
    """
    try:
        list(targets_of_batch(settings, batch, [0]))
    except Misconfigured as error:
        if batch.chooses_id:
            raise
        raise Misconfigured(
            f"The sink {batch.sink!r} needs the ids of the jobs, which a batch has "
            "with the transport 'redis' only: set it in the connection "
            f"{settings.connection.conn_id!r}."
        ) from error
    sink_from_uri(manifest).bind(settings).check_manifest(batch.batch_id)


def too_many_failed(
    batch: BatchProgress, max_failed: float, manifest: Reference | None = None
) -> BatchFailed:
    """Return the error of a batch in which too many jobs have failed.

    Args:
        batch: The batch.
        max_failed: The task's argument of that name.
        manifest: Its manifest; None if not all jobs have ended.
    """
    reasons = "; ".join(f"job {index}: {text}" for index, text in batch.reasons.items())
    where = "" if manifest is None else f" All results are in {manifest.uri}."
    return BatchFailed(
        f"{len(batch.failed):,} of {batch.total:,} jobs of batch {batch.batch_id} "
        f"failed, and max_failed is {max_failed}. {reasons}.{where} A retry of the "
        "task runs only the failed ones again."
    )


def not_ended(
    batch: BatchProgress, limit: str, settings: Settings, refusal: str = ""
) -> DeliveryTimeout:
    """Return the error of a batch that has reached its time limit.

    Args:
        batch: The batch.
        limit: The time limit of the wait.
        settings: The runqy connection and the options.
        refusal: Why a delivery of one of its jobs was refused; empty if none was.
    """
    where = f"{refusal} " if refusal else ""
    for first in itertools.islice(batch.outstanding, 0 if refusal else 1):
        sink = sink_from_uri(batch.sink).bind(settings)
        where = (
            f"Job {first} is one of those without a result. "
            f"{sink.describe_timeout(batch.job(first))} "
        )
    return DeliveryTimeout(
        f"Not all jobs of batch {batch.batch_id} have ended within {limit}: {batch}. "
        f"{where}A retry of the task waits for the jobs in flight, and enqueues the "
        "others."
    )


def silent(batch: BatchProgress, limit: str, refusal: str = "") -> HeartbeatTimeout:
    """Return the error of a batch whose jobs were silent for too long.

    Args:
        batch: The batch.
        limit: How long they may be silent.
        refusal: Why a delivery of one of its jobs was refused; empty if none was.
    """
    advice = refusal or (
        f"Check that a runqy worker serves the queue {batch.runqy_queue!r}, and its "
        "log."
    )
    return HeartbeatTimeout(
        f"No job of batch {batch.batch_id} has delivered, nor reported progress, "
        f"within {limit}: {batch}. {advice} A retry of the task goes on from here."
    )
