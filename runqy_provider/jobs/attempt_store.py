# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Where an attempt of a task leaves its record for the next one.

| store | used where |
|---|---|
| ``AirflowStore`` | Airflow has a task state store: 3.3 and newer |
| ``RedisStore`` | webhooks are set up, or the connection names a Redis of its own |
| ``NoStore`` | neither: the next attempt computes the ids of the earlier ones |

A record is written before the job is enqueued: so there is a trace of it, whatever
fails in between.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import time
import uuid
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from runqy_provider.connections import DEFAULT_REDIS_CONN_ID
from runqy_provider.errors import NoAccess, SinkUnavailable
from runqy_provider.inbox import keys
from runqy_provider.jobs.attempt import NAMESPACE, Attempt, identity_of
from runqy_provider.redis_client import client, redis_errors

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import datetime

    from airflow.sdk import Context
    from redis import Redis

    from runqy_provider.connections import RedisConnection
    from runqy_provider.context import SinkContext

log = logging.getLogger(__name__)

#: Key in the task state store.
ATTEMPT_KEY = "runqy_attempt"

#: Seconds for which a record stays in Redis at least: a retry may begin late.
SHORTEST_TTL = 24 * 3600


class AttemptStore(Protocol):
    """Where an attempt leaves its record for the next one."""

    #: Whether it keeps anything.
    keeps_records: ClassVar[bool]

    def read(self) -> dict[str, Any] | None:
        """Return the record, whatever it holds; None where there is none.

        Raises:
            SinkUnavailable: The store is unavailable.
        """

    def write(self, record: Mapping[str, Any], expires: float) -> None:
        """Store a record in place of the one before.

        Args:
            record: Plain JSON.
            expires: Until when it is needed, in seconds since 1970.

        Raises:
            SinkUnavailable: The store is unavailable.
        """

    def previous(self, computed: Iterable[Attempt]) -> Iterable[Attempt]:
        """Return the earlier attempts of the task, the latest first.

        Args:
            computed: What they may have been, where none left a record.

        Raises:
            SinkUnavailable: The store is unavailable.
        """

    def save(self, attempt: Attempt) -> None:
        """Store the record of an attempt that is about to enqueue its job.

        Raises:
            SinkUnavailable: The store is unavailable.
        """

    def update(self, attempt: Attempt) -> None:
        """Store the record of an attempt that has its job."""

    def abandon(self) -> None:
        """Record that later attempts must not wait for the job of this one."""


def attempt_store(context: Context, sink_context: SinkContext) -> AttemptStore:
    """Return the best store that there is for the attempts of a task.

    Args:
        context: The task instance's.
        sink_context: The runqy connection and the options.
    """
    store: Any = context.get("task_state_store")
    if store is not None:
        return AirflowStore(store)
    connection, redis = sink_context.connection, sink_context.redis
    # Airflow itself makes a connection "redis_default", which often leads nowhere.
    is_used = connection.callback_secrets or (
        connection.redis_conn_id != DEFAULT_REDIS_CONN_ID
    )
    if redis is not None and is_used:
        name = record_name(context["ti"], context["dag_run"].start_date)
        namespace = connection.conn_id
        key = keys.attempt(redis.in_keys(namespace), name)
        return RedisStore(redis.for_namespace(namespace), key)
    if context["ti"].try_number > 1:
        log.info(
            "This Airflow has no task state store, and connection %r no Redis in use: "
            "a result of an earlier attempt that has arrived is found, a job that "
            "still runs is not. Set redis_conn_id to a Redis connection of your own.",
            connection.conn_id,
        )
    return NoStore()


def record_name(ti: Any, started_at: datetime | None) -> str:
    """Return a name that a task instance has in all its attempts, and no other has.

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

    keeps_records: ClassVar[bool] = True

    store: Any

    def read(self) -> dict[str, Any] | None:
        """Return the record, if there is one."""
        record = self.store.get(ATTEMPT_KEY)
        return record if isinstance(record, dict) else None

    def write(self, record: Mapping[str, Any], expires: float) -> None:  # noqa: ARG002 - the protocol's
        """Store a record in place of the one before."""
        self.store.set(ATTEMPT_KEY, dict(record))

    def previous(self, computed: Iterable[Attempt]) -> Iterable[Attempt]:  # noqa: ARG002 - the protocol's
        """Return the record, if there is one."""
        return _parsed(self.read())

    def save(self, attempt: Attempt) -> None:
        """Store a record in place of the one before."""
        self.write(attempt.to_json(), attempt.expires)

    def update(self, attempt: Attempt) -> None:
        """Store a record in place of the one before."""
        self.save(attempt)

    def abandon(self) -> None:
        """Record that later attempts must not wait for the job of this one."""
        for attempt in self.previous(()):
            self.save(dataclasses.replace(attempt, is_abandoned=True))


@dataclass(frozen=True)
class RedisStore:
    """The Redis of the inbox.

    Attributes:
        redis: The Redis.
        key: The key of the record.
    """

    keeps_records: ClassVar[bool] = True

    redis: RedisConnection
    key: str

    def read(self) -> dict[str, Any] | None:
        """Return the record, if there is one.

        Raises:
            SinkUnavailable: Redis is unavailable: a job of an earlier attempt may run.
        """
        with self._opened("look for an earlier try, so nothing was enqueued") as redis:
            record = redis.get(self.key)
        known = None if record is None else json.loads(record)
        return known if isinstance(known, dict) else None

    def write(self, record: Mapping[str, Any], expires: float) -> None:
        """Store a record in place of the one before.

        Raises:
            SinkUnavailable: Redis is unavailable: nothing may be enqueued.
        """
        ttl = max(SHORTEST_TTL, int(expires - time.time()))
        with self._opened("record this attempt, so nothing was enqueued") as redis:
            redis.set(self.key, json.dumps(record), ex=ttl)

    def previous(self, computed: Iterable[Attempt]) -> Iterable[Attempt]:  # noqa: ARG002 - the protocol's
        """Return the record, if there is one; raises what ``read`` does."""
        return _parsed(self.read())

    def save(self, attempt: Attempt) -> None:
        """Store a record in place of the one before; raises what ``write`` does."""
        self.write(attempt.to_json(), attempt.expires)

    def update(self, attempt: Attempt) -> None:
        """Store a record in place of the one before, if Redis is available.

        The job is enqueued by now, and its result is worth more than the record.
        """
        try:
            self.save(attempt)
        except (SinkUnavailable, NoAccess) as error:
            log.warning("A retry will not find the job of this attempt: %s", error)

    def abandon(self) -> None:
        """Record that later attempts must not wait for the job of this one."""
        try:
            for attempt in self.previous(()):
                self.update(dataclasses.replace(attempt, is_abandoned=True))
        except (SinkUnavailable, NoAccess) as error:
            log.warning("A retry will wait for the job of this attempt: %s", error)

    @contextmanager
    def _opened(self, what: str) -> Iterator[Redis]:
        redis = client(self.redis)
        try:
            with redis_errors(self.redis, what):
                yield redis
        finally:
            redis.close()


class NoStore:
    """No store: an attempt computes the ids that earlier ones had."""

    keeps_records: ClassVar[bool] = False

    def read(self) -> None:
        """Return None."""

    def write(self, record: Mapping[str, Any], expires: float) -> None:
        """Do nothing."""

    def previous(self, computed: Iterable[Attempt]) -> Iterable[Attempt]:
        """Return what the earlier attempts may have been."""
        return computed

    def save(self, attempt: Attempt) -> None:
        """Do nothing."""

    def update(self, attempt: Attempt) -> None:
        """Do nothing."""

    def abandon(self) -> None:
        """Do nothing."""


def _parsed(record: Mapping[str, Any] | None) -> list[Attempt]:
    if record is None:
        return []
    try:
        return [Attempt.from_json(record)]
    except KeyError:
        return []
