# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Where runqy keeps its jobs in Redis: one hash per job, in asynq's format.

The hash ``asynq:{QUEUE}:t:ID`` (the braces are part of the key) has the fields
``state``, ``result`` (what the handler returned, as JSON, where the queue stores
results), ``error_msg`` (the last error) and ``completed_at`` (seconds since 1970).
"""

from __future__ import annotations


def hash_key(runqy_queue: str, job_id: str) -> str:
    """Return the key of a job's hash."""
    return f"asynq:{{{runqy_queue}}}:t:{job_id}"
