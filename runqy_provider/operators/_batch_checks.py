# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""What is checked of a RunqyBatchOperator before anything is enqueued."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runqy_provider.errors import Misconfigured
from runqy_provider.hooks.result import check_returns
from runqy_provider.jobs.attempt_store import attempt_store
from runqy_provider.jobs.batch.wait import targets_of_batch
from runqy_provider.sinks.registry import sink_from_uri

if TYPE_CHECKING:
    from airflow.sdk import Context

    from runqy_provider.context import SinkContext
    from runqy_provider.jobs.attempt_store import AttemptStore
    from runqy_provider.jobs.batch.progress import BatchProgress
    from runqy_provider.operators.runqy_batch import RunqyBatchOperator


def store_of(
    task: RunqyBatchOperator, context: Context, sink_context: SinkContext
) -> AttemptStore:
    """Return where the progress of a batch is recorded.

    Raises:
        Misconfigured: There is no such place.
    """
    store = attempt_store(context, sink_context)
    if store is None:
        raise Misconfigured(
            "A batch needs a record of how far it is, or a retry would enqueue all "
            "jobs again, and this Airflow keeps none. Use Airflow 3.3 or newer, "
            "set up webhooks, or set redis_conn_id of connection "
            f"{task.runqy_conn_id!r} to a Redis connection of your own."
        )
    return store


def check_arguments(task: RunqyBatchOperator) -> None:
    """Check the arguments of a task.

    Raises:
        Misconfigured: One of them is not valid.
    """
    check_returns(task.returns)
    if task.max_in_flight < 1:
        raise Misconfigured(
            f"max_in_flight must be 1 or more, not {task.max_in_flight!r}."
        )
    given = task.max_failed
    is_share = isinstance(given, float)
    if isinstance(given, bool) or not given >= 0 or (is_share and given >= 1):
        raise Misconfigured(
            "max_failed must be a number of jobs, or a share of all of them as a "
            f"float from 0.0 and below 1.0, not {given!r}."
        )


def check_sinks(batch: BatchProgress, manifest: str, context: SinkContext) -> None:
    """Check that results can be waited for, and that the manifest can be written.

    Args:
        batch: The batch.
        manifest: URI of the sink for the manifest.
        context: The runqy connection and the options.

    Raises:
        Misconfigured: The sinks cannot do that.
        SinkError: The manifest cannot be written.
    """
    try:
        list(targets_of_batch(context, batch, [0]))
    except Misconfigured as error:
        if batch.chooses_id:
            raise
        raise Misconfigured(
            f"The sink {batch.sink!r} needs the ids of the jobs, which a batch has "
            "with the transport 'redis' only: set it in the connection "
            f"{context.connection.conn_id!r}."
        ) from error
    sink_from_uri(manifest).bind(context).check_manifest(batch.batch_id)
