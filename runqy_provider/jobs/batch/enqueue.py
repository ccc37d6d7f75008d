# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Enqueue the jobs of a batch in chunks: a retry continues if a worker is killed.

With the transport ``redis`` we choose the ids of jobs. A chunk is recorded after it was
enqueued; if the worker dies in between, a retry enqueues it again, and Redis refuses
the ids that it has. Over HTTP a chunk is recorded before it is enqueued: if the worker
dies in between, no job is enqueued twice, and jobs that were not enqueued fail because
nothing is delivered for them.
"""

from __future__ import annotations

import itertools
import logging
import time
from typing import TYPE_CHECKING, Any

from runqy_provider.client.api import AnswerLost
from runqy_provider.errors import RunqyError, ServerUnavailable
from runqy_provider.hooks.delivery_fields import LATE_DELIVERY, DeliveryFields
from runqy_provider.hooks.runqy import RunqyHook
from runqy_provider.jobs.telemetry import count_enqueued

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from runqy_provider.client.models import JobOptions
    from runqy_provider.jobs.batch.payloads import NumberedPayload, Payloads
    from runqy_provider.jobs.batch.progress import BatchProgress
    from runqy_provider.settings import Settings

log = logging.getLogger(__name__)

#: The most jobs of one chunk, and the most bytes of their payloads, unless one is
#: larger.
CHUNK, CHUNK_BYTES = 1000, 8 * 1024 * 1024


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
        fields = DeliveryFields(self._settings, batch.sink, deadline)
        fields.check(batch.delivery_id(0))
        jobs = payloads.numbered(itertools.islice(batch.to_enqueue(), room))
        began, before = time.monotonic(), batch.left
        with RunqyHook.from_settings(self._settings) as hook:
            for chunk in _chunks(jobs):
                self._enqueue(hook, fields, chunk)
        log.info(
            "Enqueued %s jobs in %.1f s. Batch %s: %s.",
            f"{before - batch.left:,}",
            time.monotonic() - began,
            batch.batch_id,
            batch,
        )

    def _enqueue(
        self, hook: RunqyHook, fields: DeliveryFields, chunk: list[NumberedPayload]
    ) -> None:
        batch = self._batch
        jobs: list[tuple[str | None, dict[str, Any]]] = []
        for each in chunk:
            job = batch.job(each.number)
            jobs.append((job.job_id, {**each.payload, **fields.of(job.delivery_id)}))
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
