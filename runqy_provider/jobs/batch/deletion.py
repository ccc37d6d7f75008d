# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Delete the jobs of a batch that are not waited for any more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
        Whether no job of it is pending any more.
    """
    if not batch.chooses_id:
        log.info("Its jobs stay in the queue: over HTTP their ids are not known.")
        return False
    ids = [batch.delivery_id(index) for index in batch.outstanding]
    try:
        with RunqyHook(runqy_conn_id, retry_for=0) as hook:
            number = hook.delete_pending(batch.runqy_queue, ids)
    except RunqyError as error:
        log.warning("Its jobs were not deleted: %s", error)
        return False
    log.info("%s of %s jobs were deleted before they started.", number, len(ids))
    return True
