# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Which queues runqy has, and which of them live workers serve."""

from __future__ import annotations

import difflib
import logging
from contextlib import closing
from typing import TYPE_CHECKING, cast

from runqy_provider.client import api
from runqy_provider.client.redis_keys import (
    QUEUES,
    WORKERS,
    count_workers,
    worker_key,
)
from runqy_provider.errors import RunqyError
from runqy_provider.redis_client import client, redis_errors

if TYPE_CHECKING:
    from collections import Counter

    from redis import Redis

    from runqy_provider.connections import RunqyConnection
    from runqy_provider.redis_connection import RedisConnection

log = logging.getLogger(__name__)

#: Seconds that listing the queues for an error message may take.
TIMEOUT = 5.0


def full_queue_name(runqy_queue: str) -> str:
    """Return ``parent.sub``; a name without a dot means its default sub-queue."""
    return runqy_queue if "." in runqy_queue else f"{runqy_queue}.default"


def known_queues(
    connection: RunqyConnection, redis: RedisConnection | None, timeout: float
) -> set[str] | None:
    """Return the names of all queues.

    Args:
        connection: The runqy connection.
        redis: runqy's own Redis, where the connection names it.
        timeout: Seconds that a request may take.

    Returns:
        None where they cannot be known: that needs runqy's Redis or the admin key.

    Raises:
        SinkUnavailable: runqy's Redis is unavailable.
        RunqyError: The server is unavailable, or refuses the admin key.
    """
    if connection.admin_key is not None:
        return api.ask(connection, api.list_queues(), timeout)
    if redis is None:
        return None
    with closing(client(redis)) as opened, redis_errors(redis, "list the queues"):
        names = cast("set[bytes]", opened.smembers(QUEUES))
    return {name.decode() for name in names}


def name_queues(
    message: str,
    asked: str,
    connection: RunqyConnection,
    redis: RedisConnection | None,
) -> str:
    """Add the queues that there are to a message that one does not exist.

    Args:
        message: The message.
        asked: The queue that does not exist.
        connection: The runqy connection.
        redis: runqy's own Redis, if the connection names it.

    Returns:
        The message; with a name like the one that was asked for before it, and all
        names behind it, as far as they are known.
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
        with closing(client(redis)) as opened, redis_errors(redis, "look at workers"):
            return set(read_workers(opened))
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
