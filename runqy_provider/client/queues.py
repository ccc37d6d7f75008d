# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Queues, and where runqy keeps their jobs and workers in Redis, in asynq's format.

The hash ``asynq:{QUEUE}:t:ID`` (the braces are part of the key) is one job. It has the
fields ``state``, ``result`` (what the handler returned, as JSON, if the queue stores
results), ``error_msg`` (the last error) and ``completed_at`` (seconds since 1970). The
sorted set ``asynq:{QUEUE}:lease`` holds the ids of active jobs by the end of their
lease, in seconds since 1970; a live worker extends it. The hash ``asynq:t:ID`` has the
field ``queue``, by which the server finds a job; it stays after the job has ended.

The hash ``asynq:workers:ID`` has the field ``queues``, which says what a worker serves.
"""

from __future__ import annotations

import difflib
import logging
import re
from collections import Counter
from typing import TYPE_CHECKING, cast

from runqy_provider.client import api
from runqy_provider.errors import RunqyError
from runqy_provider.redis_client import opened

if TYPE_CHECKING:
    from collections.abc import Iterable

    from redis import Redis

    from runqy_provider.connections import RunqyConnection
    from runqy_provider.redis_connection import RedisConnection

#: Set of the names of all queues.
QUEUES = "asynq:queues"

#: Sorted set of the workers' ids.
WORKERS = "asynq:workers"

_WEIGHTS = re.compile(r"map\[(.*)\]")

log = logging.getLogger(__name__)

#: Seconds that listing the queues for an error message may take.
TIMEOUT = 5.0


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


def full_queue_name(runqy_queue: str) -> str:
    """Return ``parent.sub``; a name without a dot means its default sub-queue."""
    return runqy_queue if "." in runqy_queue else f"{runqy_queue}.default"


def known_queues(
    connection: RunqyConnection, redis: RedisConnection | None, timeout: float
) -> set[str] | None:
    """Return the names of all queues.

    Args:
        connection: The runqy connection.
        redis: runqy's own Redis, if the connection names it.
        timeout: Seconds that a request may take.

    Returns:
        None if they cannot be known: that needs runqy's Redis or the admin key.

    Raises:
        SinkUnavailable: runqy's Redis is unavailable.
        RunqyError: The server is unavailable, or refuses the admin key.
    """
    if connection.admin_key is not None:
        return api.ask(connection, api.list_queues(), timeout)
    if redis is None:
        return None
    with opened(redis, "list the queues") as runqy:
        names = cast("set[bytes]", runqy.smembers(QUEUES))
    return {name.decode() for name in names}


def name_queues(
    message: str,
    asked: str,
    connection: RunqyConnection,
    redis: RedisConnection | None,
) -> str:
    """Add the existing queues to a message that a queue does not exist.

    Args:
        message: The message.
        asked: The queue that does not exist.
        connection: The runqy connection.
        redis: runqy's own Redis, if the connection names it.

    Returns:
        The message, with a similar name before it and all names after it, if they are
        known.
    """
    try:
        known = known_queues(connection, redis, TIMEOUT)
    except RunqyError as error:
        log.warning("The queues of runqy cannot be listed: %s", error)
        return message
    if not known:
        return message
    # As a user would write them: without the sub-queue, if it is the default one.
    names = {name.removesuffix(".default"): name for name in known} | {
        name: name for name in known
    }
    similar = difflib.get_close_matches(asked, names, n=1)
    hint = f"Did you mean {similar[0]!r}? " if similar else ""
    return f"{hint}{message} Its queues: {', '.join(sorted(known))}."


def served_queues(
    connection: RunqyConnection, redis: RedisConnection | None, timeout: float
) -> set[str] | None:
    """Return the queues that a live worker serves; for code without an event loop.

    Args:
        connection: The runqy connection.
        redis: runqy's own Redis, if the connection names it.
        timeout: Seconds that a request may take.

    Returns:
        None if they cannot be known: that needs runqy's Redis or the admin key.

    Raises:
        SinkUnavailable: runqy's Redis is unavailable.
        RunqyError: The server is unavailable, or refuses the admin key.
    """
    if redis is not None:
        with opened(redis, "look at workers") as runqy:
            return set(read_workers(runqy))
    if connection.admin_key is None:
        return None
    workers = api.ask(connection, api.list_workers(), timeout)
    return set(count_workers(one.queues for one in workers if not one.is_stale))


def read_workers(client: Redis) -> Counter[str]:
    """Return how many live workers serve each queue, in two round trips.

    Args:
        client: A client of runqy's own Redis.

    Raises:
        RedisError: Redis is unavailable, or denies access.
    """
    workers = cast("list[bytes]", client.zrange(WORKERS, 0, -1))
    with client.pipeline(transaction=False) as pipeline:
        for worker_id in workers:
            pipeline.hget(worker_key(worker_id.decode()), "queues")
        return count_workers(pipeline.execute())
