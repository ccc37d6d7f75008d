# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Delete the jobs of a batch that nobody waits for any more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runqy_provider.errors import RunqyError
from runqy_provider.hooks.runqy import RunqyHook

if TYPE_CHECKING:
    from runqy_provider.jobs.batch.progress import BatchProgress


def delete_pending(runqy_conn_id: str, batch: BatchProgress) -> str:
    """Delete the jobs of a batch that wait for a worker.

    Returns:
        A sentence for the log; errors of runqy are part of it.
    """
    if not batch.chooses_id:
        return "Its jobs stay in the queue: over HTTP their ids are not known."
    ids = [batch.delivery_id(index) for index in batch.outstanding]
    try:
        with RunqyHook(runqy_conn_id, retry_for=0) as hook:
            number = hook.delete_pending(batch.runqy_queue, ids)
    except RunqyError as error:
        return f"Its jobs were not deleted: {error}"
    return f"{number:,} of {len(ids):,} jobs were deleted before they started."
