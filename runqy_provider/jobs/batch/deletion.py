# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Delete the jobs of a batch for which no task waits any more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runqy_provider.client.find_job import find_waiting
from runqy_provider.errors import RunqyError
from runqy_provider.hooks.runqy import RunqyHook

if TYPE_CHECKING:
    from runqy_provider.jobs.batch.progress import BatchProgress


def delete_pending(runqy_conn_id: str, batch: BatchProgress, log: Any) -> bool:
    """Delete the jobs of a batch that wait for a worker.

    Args:
        runqy_conn_id: The runqy connection.
        batch: The batch.
        log: The logger that says what was deleted, or why nothing was.

    Returns:
        Whether none of its jobs is pending any more.
    """
    try:
        with RunqyHook(runqy_conn_id, retry_for=0) as hook:
            ids = _ids(hook, batch)
            if ids is None:
                log.warning(
                    "The jobs of the batch stay in the queue %r: over HTTP their ids "
                    "are not known. To find and delete them, enter runqy's own Redis "
                    "in connection %r.",
                    batch.runqy_queue,
                    runqy_conn_id,
                )
                return False
            number = hook.delete_pending(batch.runqy_queue, ids)
    except RunqyError as error:
        log.warning("The jobs of the batch were not deleted: %s", error)
        return False
    log.info(
        "%s jobs of the batch were deleted before they started; none of its jobs is "
        "pending any more.",
        number,
    )
    return True


def _ids(hook: RunqyHook, batch: BatchProgress) -> list[str] | None:
    """Return runqy's ids of the jobs that may wait for a worker.

    A job that has failed is one of them: runqy runs it again, also if its handler
    raised.

    Returns:
        None if they cannot be found.
    """
    if batch.chooses_id:
        indexes = (*batch.outstanding, *batch.failed)
        return [batch.delivery_id(index) for index in indexes]
    redis = hook.settings.runqy_redis
    return (
        None
        if redis is None
        else find_waiting(redis, batch.runqy_queue, batch.batch_id)
    )
