# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Where runqy keeps jobs and workers in Redis: one hash for each, in asynq's format.

The hash ``asynq:{QUEUE}:t:ID`` (the braces are part of the key) has the fields
``state``, ``result`` (what the handler returned, as JSON, if the queue stores results),
``error_msg`` (the last error) and ``completed_at`` (seconds since 1970). The sorted set
``asynq:{QUEUE}:lease`` holds the ids of active jobs by the end of their lease, in
seconds since 1970; a live worker extends it. The hash ``asynq:t:ID`` has the field
``queue``, by which the server finds a job; it stays after the job has ended.

The hash ``asynq:workers:ID`` has the field ``queues``, which says what a worker serves.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Set of the names of all queues.
QUEUES = "asynq:queues"

#: Sorted set of the workers' ids.
WORKERS = "asynq:workers"

_WEIGHTS = re.compile(r"map\[(.*)\]")


def hash_key(runqy_queue: str, job_id: str) -> str:
    """Return the key of a job's hash."""
    return f"asynq:{{{runqy_queue}}}:t:{job_id}"


def reverse_key(job_id: str) -> str:
    """Return the key of the hash that says which queue a job belongs to."""
    return f"asynq:t:{job_id}"


def lease_key(runqy_queue: str) -> str:
    """Return the key of a queue's leases."""
    return f"asynq:{{{runqy_queue}}}:lease"


def pending_key(runqy_queue: str) -> str:
    """Return the key of the list of a queue's pending jobs, the newest first."""
    return f"asynq:{{{runqy_queue}}}:pending"


def retry_key(runqy_queue: str) -> str:
    """Return the key of the sorted set of a queue's jobs that will run again."""
    return f"asynq:{{{runqy_queue}}}:retry"


def worker_key(worker_id: str) -> str:
    """Return the key of a worker's hash; it expires when the worker is gone."""
    return f"asynq:workers:{worker_id}"


def count_workers(texts: Iterable[bytes | str | None]) -> Counter[str]:
    """Return how many live workers serve each queue.

    Args:
        texts: What each says that it serves: ``map[a.default:5 b.high:10]``. None for a
            worker that is gone: its hash has expired.
    """
    served: Counter[str] = Counter()
    for text in texts:
        if text is not None:
            plain = text.decode() if isinstance(text, bytes) else text
            found = _WEIGHTS.fullmatch(plain.strip())
            weights = found[1].split() if found else []
            served.update({weight.rpartition(":")[0] for weight in weights})
    return served
