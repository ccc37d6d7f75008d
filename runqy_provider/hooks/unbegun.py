# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Delete a job that has not begun; leave any other alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runqy_provider.errors import JobVanished, RunqyError
from runqy_provider.server.job import PENDING, RETRY, SCHEDULED

if TYPE_CHECKING:
    from runqy_provider.hooks.runqy import RunqyHook

#: States in which a job may be deleted: no result is lost, no work either.
UNBEGUN = (PENDING, SCHEDULED, RETRY)


def delete_unbegun(hook: RunqyHook, runqy_queue: str, job_id: str) -> str:
    """Delete a job that waits for a worker; needs the admin key.

    Returns:
        Words on what became of it, whatever happened.
    """
    try:
        state = hook.get_job(job_id).state
        deleted = state in UNBEGUN and hook.delete_job(runqy_queue, job_id)
    except RunqyError as error:
        return _trouble(job_id, error)
    return _words(job_id, state, deleted=deleted)


async def adelete_unbegun(hook: RunqyHook, runqy_queue: str, job_id: str) -> str:
    """Delete it from async code; see delete_unbegun."""
    try:
        state = (await hook.aget_job(job_id)).state
        deleted = state in UNBEGUN and await hook.adelete_job(runqy_queue, job_id)
    except RunqyError as error:
        return _trouble(job_id, error)
    return _words(job_id, state, deleted=deleted)


def _trouble(job_id: str, error: RunqyError) -> str:
    if isinstance(error, JobVanished):
        return f"Job {job_id} is gone from runqy already."
    return f"Job {job_id} was not deleted: {error}"


def _words(job_id: str, state: str, *, deleted: bool) -> str:
    if deleted:
        return f"Job {job_id} was deleted before it began."
    return f"Job {job_id} is {state} and is left alone: runqy cannot stop a job."
