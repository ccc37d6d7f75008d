# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Begin a batch, or take over that of the previous attempt; enqueue it in chunks.

With the transport ``redis`` we choose the ids of jobs. A chunk is recorded after it was
enqueued; if the worker dies in between, a retry enqueues it again, and Redis refuses
the ids that it has. Over HTTP a chunk is recorded before it is enqueued: if the worker
dies in between, no job is enqueued twice, and jobs that were not enqueued fail because
nothing is delivered for them.
"""

from __future__ import annotations

import itertools
import json
import logging
import time
import uuid
from typing import TYPE_CHECKING, Any

from runqy_provider.airflow_compat import identity_of
from runqy_provider.client.api import AnswerLost
from runqy_provider.client.queues import full_queue_name
from runqy_provider.connections import REDIS
from runqy_provider.errors import RunqyError, ServerUnavailable
from runqy_provider.hooks.runqy import RunqyHook
from runqy_provider.jobs.attempt_store import NAMESPACE
from runqy_provider.jobs.batch.deletion import delete_pending
from runqy_provider.jobs.batch.progress import BatchProgress
from runqy_provider.jobs.batch.wait import find_results
from runqy_provider.jobs.outcome import while_unavailable
from runqy_provider.jobs.telemetry import count_enqueued
from runqy_provider.sinks.base import LATE_DELIVERY
from runqy_provider.sinks.registry import sink_from_uri

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from airflow.sdk import Context

    from runqy_provider.client.models import JobOptions
    from runqy_provider.jobs.attempt_store import AttemptStore
    from runqy_provider.jobs.batch.payloads import NumberedPayload, Payloads
    from runqy_provider.settings import Settings
    from runqy_provider.sinks.base import BoundSink, Sink

log = logging.getLogger(__name__)

#: The most jobs of one chunk, and the most bytes of their payloads, unless one is
#: larger.
CHUNK, CHUNK_BYTES = 1000, 8 * 1024 * 1024


def begin(
    context: Context,
    settings: Settings,
    store: AttemptStore,
    payloads: Payloads,
    *,
    sink: Sink,
    deadline: float,
    deletes: bool,
) -> BatchProgress:
    """Return the previous attempt's batch if that asked for the same; else a new one.

    Args:
        context: The task instance's.
        settings: The runqy connection and the options.
        store: Where the previous attempt has stored its record.
        payloads: The payloads.
        sink: Where the results are to be delivered.
        deadline: Until when they are waited for, in seconds since 1970.
        deletes: Whether the pending jobs of another batch are deleted.

    Raises:
        DeliveryIdTaken: The sink has the first result of a batch without a record.
        RunqyError: The sink cannot be used, so it is not known what has arrived.
    """
    new = _new_batch(context, settings, payloads, sink, deadline)
    record = store.read() or {}
    previous = _previous(record)
    if previous is None or previous.batch_id != new.batch_id:
        sink.bind(settings).check_is_new(new.delivery_id(0))
    if previous is None:
        return new
    conn_id = settings.connection.conn_id
    if previous.batch_id != new.batch_id:
        if deletes and previous.outstanding:
            # The task does not wait for them any more, and they must not run together
            # with the new ones.
            log.info("The payloads have changed: the earlier jobs are deleted.")
            delete_pending(conn_id, previous, log)
        return new
    if "manifest" in record:
        return previous  # the attempt was killed after it had written all results
    while_unavailable(lambda: find_results(settings, previous))
    if previous.expires <= time.time() and previous.outstanding:
        log.info("The callback URLs of the jobs in flight have expired.")
        delete_pending(conn_id, previous, log)
        for index in list(previous.outstanding):
            previous.on_ended(index, "Its callback URL has expired.")
    previous.run_failed_again()
    log.info(
        "Going on with batch %s of the previous attempt: %s.",
        previous.batch_id,
        previous,
    )
    return previous


def _previous(record: Mapping[str, Any]) -> BatchProgress | None:
    try:
        return BatchProgress.from_json(record["batch"]) if "batch" in record else None
    except (KeyError, ValueError, TypeError) as error:
        log.warning(
            "The record of the previous attempt cannot be read (%r), so all jobs are "
            "enqueued. Was it written by another version of airflow-provider-runqy?",
            error,
        )
        return None


def _new_batch(
    context: Context,
    settings: Settings,
    payloads: Payloads,
    sink: Sink,
    deadline: float,
) -> BatchProgress:
    connection = settings.connection
    queue = full_queue_name(payloads.runqy_queue)
    chooses_id = connection.transport == REDIS
    asked = [connection.conn_id, queue, sink.uri, chooses_id, payloads.digest]
    return BatchProgress(
        batch_id=_batch_id(context, asked),
        sink=sink.uri,
        runqy_queue=queue,
        chooses_id=chooses_id,
        total=payloads.total,
        digest=payloads.digest,
        expires=deadline + LATE_DELIVERY,
    )


def _batch_id(context: Context, asked: list[Any]) -> str:
    """Return the id of a batch, which all attempts to do the same have.

    It contains ``max_tries``, which Airflow raises when a user clears the task to run
    all jobs again; and the start of the run, which differs if a run is deleted and
    created again.
    """
    ti = context["ti"]
    started = str(context["dag_run"].start_date or ti.id)
    name = [*identity_of(ti), started, ti.max_tries or 0, asked]
    return str(uuid.uuid5(NAMESPACE, json.dumps(name)))


class BatchEnqueuer:
    """Enqueues the jobs of one batch.

    Args:
        settings: The runqy connection and the options.
        batch: The batch; what is enqueued is recorded in it.
        options: The other options of each job.
        save: Stores the record of the batch.
    """

    def __init__(
        self,
        settings: Settings,
        batch: BatchProgress,
        options: JobOptions,
        save: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._batch = batch
        self._options = options
        self._save = save

    def enqueue(self, payloads: Payloads, most_in_flight: int, deadline: float) -> None:
        """Enqueue jobs until ``most_in_flight`` are in flight, or none is left.

        Args:
            payloads: The payloads of the whole batch.
            most_in_flight: How many jobs may be in flight.
            deadline: Until when their results are waited for, in seconds since 1970.

        Raises:
            RunqyError: As ``RunqyHook.submit``; the message names the chunk.
        """
        batch = self._batch
        room = max(0, most_in_flight - len(batch.outstanding))
        if not room or not batch.left:
            return
        batch.expires = max(batch.expires, deadline + LATE_DELIVERY)
        bound = sink_from_uri(batch.sink).bind(self._settings)
        bound.check_delivery(batch.delivery_id(0))
        jobs = payloads.numbered(itertools.islice(batch.to_enqueue(), room))
        began, before = time.monotonic(), batch.left
        with RunqyHook.from_settings(self._settings) as hook:
            for chunk in _chunks(jobs):
                self._enqueue(hook, bound, chunk, deadline)
        log.info(
            "Enqueued %s jobs in %.1f s. Batch %s: %s.",
            f"{before - batch.left:,}",
            time.monotonic() - began,
            batch.batch_id,
            batch,
        )

    def _enqueue(
        self,
        hook: RunqyHook,
        bound: BoundSink,
        chunk: list[NumberedPayload],
        deadline: float,
    ) -> None:
        batch = self._batch
        jobs: list[tuple[str | None, dict[str, Any]]] = []
        for each in chunk:
            job = batch.job(each.number)
            asked = bound.prepared_fields(job.delivery_id, deadline)
            jobs.append((job.job_id, {**each.payload, **asked}))
        if batch.chooses_id:
            hook.enqueue_batch(batch.runqy_queue, jobs, self._options)
            self._record(chunk)
        else:
            self._enqueue_once(hook, jobs, chunk)
        count_enqueued(batch.job(chunk[0].number), len(chunk))

    def _enqueue_once(
        self,
        hook: RunqyHook,
        jobs: list[tuple[str | None, dict[str, Any]]],
        chunk: list[NumberedPayload],
    ) -> None:
        batch = self._batch
        first, last, enqueued = chunk[0].number, chunk[-1].number, batch.enqueued
        self._record(chunk)
        try:
            ids = hook.enqueue_batch(batch.runqy_queue, jobs, self._options)
        except AnswerLost as error:
            raise ServerUnavailable(
                f"{error} The jobs {first} to {last} of the batch count "
                "as enqueued, so that none runs twice. A retry of the task waits for "
                "them, and enqueues those that follow."
            ) from error
        except RunqyError:
            # Certainly not enqueued: the next attempt does it.
            batch.on_refused([each.number for each in chunk], enqueued)
            self._save()
            raise
        if len(ids) < len(jobs):
            log.warning(
                "runqy has enqueued %s of the jobs %s to %s, and does not say which. "
                "The others fail, as nothing is delivered for them; a retry of the "
                "task runs them.",
                len(ids),
                first,
                last,
            )

    def _record(self, chunk: list[NumberedPayload]) -> None:
        for each in chunk:
            self._batch.on_enqueued(each.number)
        self._save()


def _chunks(jobs: Iterable[NumberedPayload]) -> Iterator[list[NumberedPayload]]:
    chunk: list[NumberedPayload] = []
    size = 0
    for job in jobs:
        if chunk and (len(chunk) == CHUNK or size + job.size > CHUNK_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(job)
        size += job.size
    if chunk:
        yield chunk
