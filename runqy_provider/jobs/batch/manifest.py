# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The manifest of a batch: one line per job, in the order of the payloads."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any

from runqy_delivery import BadDelivery as WireBadDelivery
from runqy_provider.errors import (
    JobFailed,
    JobVanished,
    NotInSink,
    NotThere,
    RunqyError,
)
from runqy_provider.jobs.batch.payloads import scratch_file
from runqy_provider.jobs.batch.wait import look
from runqy_provider.models import Reference, looks_like_reference
from runqy_provider.sanitize import storable
from runqy_provider.sinks.batch_result import BatchResult
from runqy_provider.sinks.registry import sink_from_uri
from runqy_provider.sinks.result import MANIFEST_TYPE
from runqy_provider.xcom_value import is_kept_by_xcom

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from runqy_provider.hooks.result import RunqyResultHook
    from runqy_provider.jobs.batch.progress import BatchProgress
    from runqy_provider.sinks.result import StoredResult
    from runqy_provider.waiters.many import EndedWait

#: How many results are in memory at a time.
AT_ONCE = 200

#: Most bytes of all values in a manifest; what does not fit is a reference.
MOST_VALUES = 256 * 1024 * 1024

#: Errors of one delivery. Any other error is the sink's: it says nothing about a job.
OF_ONE_DELIVERY = (JobFailed, JobVanished, NotThere, NotInSink, WireBadDelivery)

#: For how many failed jobs the reason is read from the sink.
MOST_READ_REASONS = 100

#: How many times longer than its value a line of a manifest may be.
MOST_LINE_TO_VALUE = 100

#: The reason of a failed job for which none was kept.
NO_REASON = "It failed. See the log of the runqy worker."


class BatchManifest:
    """Reads the results of a batch, and writes its manifest.

    If a result is found to be a failure, or lost, that is recorded in the batch.

    Args:
        batch: The batch, all of whose jobs have ended.
        results: The hook that reads results.
    """

    def __init__(self, batch: BatchProgress, results: RunqyResultHook) -> None:
        self._batch = batch
        self._results = results
        settings = results.settings
        self._sink = sink_from_uri(batch.sink).bind(settings)
        limit = settings.config.xcom_limit
        self._small = min(limit, MOST_VALUES // max(1, batch.total))
        self._failures: dict[int, StoredResult | Exception] = {}

    def write(self, sink: str) -> Reference:
        """Write the manifest to a sink.

        Args:
            sink: URI of the sink for the manifest.

        Returns:
            Where it is.

        Raises:
            SinkError: A result cannot be read, or the manifest cannot be written.
        """
        batch_id = self._batch.batch_id
        target = sink_from_uri(sink).bind(self._results.settings)
        failed = itertools.islice(self._batch.failed, MOST_READ_REASONS)
        self._failures = self._look_for(list(failed))
        with scratch_file() as file:
            for result in self._all():
                file.write(result.to_line())
            size = file.tell()
            file.seek(0)
            uri = target.write_manifest(batch_id, file)
        conn_id = self._results.runqy_conn_id
        return Reference(uri, MANIFEST_TYPE, size, batch_id, runqy_conn_id=conn_id)

    def forget(self, manifest: Reference) -> None:
        """Let an inbox drop the deliveries whose values a manifest has.

        Args:
            manifest: What ``write`` has returned.
        """
        if not self._sink.sink.parts[0].is_inbox:
            return
        results = self._results.read_batch(manifest)
        while chunk := list(itertools.islice(results, AT_ONCE)):
            uris = [
                self._sink.result_uri(result.delivery_id)
                for result in chunk
                if result.reference is None and result.error is None
            ]
            self._sink.inbox.forget(*uris)

    def _all(self) -> Iterator[BatchResult]:
        for start in range(0, self._batch.total, AT_ONCE):
            end = min(start + AT_ONCE, self._batch.total)
            yield from self._chunk(range(start, end))

    def _chunk(self, indexes: range) -> Iterator[BatchResult]:
        batch = self._batch
        wanted = [index for index in indexes if index not in batch.failed]
        jobs = [batch.job(index) for index in wanted]
        opened = self._sink.open_all(jobs, self._small)
        fetched = dict(zip(wanted, opened, strict=True))
        # Some were delivered to another place, which their webhook names.
        missing = [index for index in wanted if isinstance(fetched[index], NotThere)]
        fetched |= self._look_for(missing)
        for index in indexes:
            found = fetched.get(index, self._failures.get(index))
            yield self._result(index, found)

    def _look_for(self, indexes: Sequence[int]) -> dict[int, StoredResult | Exception]:
        """Find deliveries in all places where they may be, and open them."""
        uris: dict[int, str] = {}

        def on_end(ended: EndedWait) -> bool:
            if ended.arrival is not None:
                uris[ended.index] = ended.arrival.result_uri
            return True

        look(self._results.settings, self._batch, indexes, on_end)
        return {index: self._open(index, uri) for index, uri in uris.items()}

    def _open(self, index: int, uri: str) -> StoredResult | Exception:
        delivery_id = self._batch.delivery_id(index)
        try:
            return self._sink.open_arrived(delivery_id, uri)
        except (RunqyError, WireBadDelivery) as error:
            return error

    def _result(
        self, index: int, fetched: StoredResult | Exception | None
    ) -> BatchResult:
        batch, delivery_id = self._batch, self._batch.delivery_id(index)
        try:
            if fetched is None:
                raise JobFailed(batch.reasons.get(index) or NO_REASON)
            if isinstance(fetched, Exception):
                raise fetched
            value, reference = self._results.value_or_reference(
                fetched, delivery_id, self._small
            )
        except OF_ONE_DELIVERY as error:
            message = storable(str(error))
            batch.on_ended(index, message)
            return BatchResult(index, delivery_id, error=message)
        batch.on_found(index)
        return BatchResult(index, delivery_id, value, reference)


def values_in(results: RunqyResultHook, manifest: Reference) -> list[Any] | None:
    """Return what downstream tasks get, if XCom can hold it.

    Args:
        results: The hook that reads results.
        manifest: The manifest.

    Returns:
        The result of each job or a reference to it, None for one that failed; None if
        they are too large, or XCom would change them.
    """
    limit = results.settings.config.xcom_limit
    if manifest.size is None or manifest.size > limit * MOST_LINE_TO_VALUE:
        return None
    values: list[Any] = []
    for result in results.read_batch(manifest):
        if result.reference is not None:
            values.append(result.reference.to_xcom())
        elif looks_like_reference(result.value):
            # As an XCom, it would let the task code choose what a downstream task
            # reads.
            return None
        else:
            values.append(result.value)
    if len(json.dumps(values, separators=(",", ":"))) > limit:
        return None
    return values if is_kept_by_xcom(values) else None
