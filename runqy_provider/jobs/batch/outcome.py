# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The errors of a batch, with what a user needs to know of its jobs."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from runqy_provider.errors import BatchFailed, DeliveryTimeout, HeartbeatTimeout
from runqy_provider.sinks.registry import sink_from_uri

if TYPE_CHECKING:
    from runqy_provider.context import SinkContext
    from runqy_provider.jobs.batch.progress import BatchProgress
    from runqy_provider.models import Reference


def too_many_failed(
    batch: BatchProgress, max_failed: float, manifest: Reference | None = None
) -> BatchFailed:
    """Return the error of a batch in which too many jobs have failed.

    Args:
        batch: The batch.
        max_failed: The task's argument of that name.
        manifest: Its manifest; None where not all jobs have ended.
    """
    reasons = "; ".join(f"job {index}: {text}" for index, text in batch.reasons.items())
    where = "" if manifest is None else f" All results are in {manifest.uri}."
    return BatchFailed(
        f"{len(batch.failed):,} of {batch.total:,} jobs of batch {batch.batch_id} "
        f"failed, and max_failed is {max_failed}. {reasons}.{where} A retry of the "
        "task runs the failed ones again, and no other."
    )


def not_ended(
    batch: BatchProgress, limit: str, context: SinkContext, refusal: str = ""
) -> DeliveryTimeout:
    """Return the error of a batch whose time is over.

    Args:
        batch: The batch.
        limit: The time limit of the wait.
        context: The runqy connection and the options.
        refusal: Why a delivery of one of its jobs was refused; empty: none was.
    """
    where = f"{refusal} " if refusal else ""
    for first in itertools.islice(batch.outstanding, 0 if refusal else 1):
        sink = sink_from_uri(batch.sink).bind(context)
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
    """Return the error of a batch of which no job gave a sign of life.

    Args:
        batch: The batch.
        limit: The time limit of the silence.
        refusal: Why a delivery of one of its jobs was refused; empty: none was.
    """
    advice = refusal or (
        f"Check that a runqy worker serves the queue {batch.runqy_queue!r}, and its "
        "log."
    )
    return HeartbeatTimeout(
        f"No job of batch {batch.batch_id} has delivered, nor reported progress, "
        f"within {limit}: {batch}. {advice} A retry of the task goes on from here."
    )
