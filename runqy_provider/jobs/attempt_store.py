# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Where the attempts of a task instance leave a record for the next one.

| store | used if |
|---|---|
| ``AirflowStore`` | Airflow has a task state store: 3.3 and newer |
| ``RedisStore`` | webhooks are set up, or the connection names a Redis of its own |
| None | neither: the next attempt computes the ids of the earlier ones |

A record is written before the job is enqueued: so there is a record of it, even if
something fails in between.
"""

from __future__ import annotations

import json
import logging
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from runqy_provider.airflow_compat import identity_of
from runqy_provider.connections import DEFAULT_REDIS_CONN_ID
from runqy_provider.inbox import keys
from runqy_provider.redis_client import opened

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from airflow.sdk import Context

    from runqy_provider.redis_connection import RedisConnection
    from runqy_provider.settings import Settings

log = logging.getLogger(__name__)

#: Namespace of our ids. A change of it would change the id of every attempt.
NAMESPACE = uuid.UUID("6f1d3f5e-6d0b-5c9e-9a53-2f1b7c0a4e11")

#: Key in the task state store.
ATTEMPT_KEY = "runqy_attempt"

#: Least seconds for which a record stays in Redis: a retry may begin late.
SHORTEST_TTL = 24 * 3600


def attempt_store(context: Context, settings: Settings) -> AttemptStore | None:
    """Return the best available store for the attempts of a task, or None.

    Args:
        context: The task instance's.
        settings: The runqy connection and the options.
    """
    store: Any = context.get("task_state_store")
    if store is not None:
        return AirflowStore(store)
    connection, redis = settings.connection, settings.redis
    # Airflow itself makes a connection "redis_default", often without a server behind
    # it.
    is_used = connection.callback_secrets or (
        connection.redis_conn_id != DEFAULT_REDIS_CONN_ID
    )
    if redis is not None and is_used:
        name = record_name(context["ti"], context["dag_run"].start_date)
        namespace = connection.conn_id
        key = keys.attempt(redis.in_keys(namespace), name)
        return RedisStore(redis.for_namespace(namespace), key)
    if context["ti"].try_number > 1 and settings.runqy_redis is None:
        log.info(
            "This Airflow has no task state store, and connection %r no Redis in use: "
            "a result of an earlier attempt that has arrived is found, a job that "
            "still runs is not. Set redis_conn_id to a Redis connection of your own.",
            connection.conn_id,
        )
    return None


def record_name(ti: Any, started_at: datetime | None) -> str:
    """Return a unique name of a task instance, the same in all its attempts.

    Args:
        ti: The task instance.
        started_at: When its run started. A run that is created again, or cleared after
            its end, starts at another time.
    """
    name = [*identity_of(ti), str(started_at)]
    return str(uuid.uuid5(NAMESPACE, json.dumps(name)))


@dataclass(frozen=True)
class AirflowStore:
    """Airflow's own store for the state of a task, which it keeps over retries.

    Attributes:
        store: What the context calls ``task_state_store``.
    """

    store: Any

    def read(self) -> dict[str, Any] | None:
        """Return the record, if there is one."""
        record = self.store.get(ATTEMPT_KEY)
        return record if isinstance(record, dict) else None

    def write(self, record: Mapping[str, Any], expires: float) -> None:  # noqa: ARG002 - as RedisStore
        """Store a record in place of the one before."""
        self.store.set(ATTEMPT_KEY, dict(record))


@dataclass(frozen=True)
class RedisStore:
    """The Redis of the inbox.

    Attributes:
        redis: The Redis.
        key: The key of the record.
    """

    redis: RedisConnection
    key: str

    def read(self) -> dict[str, Any] | None:
        """Return the record, if there is one.

        Raises:
            SinkUnavailable: Redis is unavailable: a job of an earlier attempt may run.
        """
        what = "look for an earlier try, so nothing was enqueued"
        with opened(self.redis, what) as redis:
            record = redis.get(self.key)
        known = None if record is None else json.loads(record)
        return known if isinstance(known, dict) else None

    def write(self, record: Mapping[str, Any], expires: float) -> None:
        """Store a record in place of the one before.

        Args:
            record: Plain JSON.
            expires: Until when it is needed, in seconds since 1970.

        Raises:
            SinkUnavailable: Redis is unavailable: nothing may be enqueued.
        """
        ttl = max(SHORTEST_TTL, int(expires - time.time()))
        what = "record this attempt, so nothing was enqueued"
        with opened(self.redis, what) as redis:
            redis.set(self.key, json.dumps(record), ex=ttl)


#: Both have ``read`` and ``write``, and raise SinkUnavailable if they are unavailable.
AttemptStore: TypeAlias = "AirflowStore | RedisStore"
