"""Every store of attempts lets a retry find the attempt before it."""

from __future__ import annotations

import dataclasses
import logging
import time
import uuid
from dataclasses import dataclass, field
from datetime import datetime, timezone
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from redis import Redis

from runqy_provider.connections import RunqyConnection
from runqy_provider.errors import SinkUnavailable
from runqy_provider.jobs import launch
from runqy_provider.jobs.attempt_store import (
    SHORTEST_TTL,
    AirflowStore,
    RedisStore,
    attempt_store,
)
from runqy_provider.jobs.launch import JobSpec
from runqy_provider.settings import Settings, load_config
from runqy_provider.sinks.registry import sink_from_uri

if TYPE_CHECKING:
    from runqy_provider.jobs.attempt_store import AttemptStore
    from runqy_provider.jobs.launch import Attempt
    from runqy_provider.redis_connection import RedisConnection

SPEC = JobSpec("runqy_default", "q", {"n": 1}, sink_from_uri("s3://bucket/prefix"))

STARTED = datetime(2026, 1, 1, tzinfo=timezone.utc)


class StateStore(dict[str, Any]):
    """What a task sees of Airflow's task state store."""

    def set(self, key: str, value: Any) -> None:
        self[key] = value


@dataclass(frozen=True)
class Try:
    """One try of a task instance."""

    number: int = 1
    max_tries: int = 2
    map_index: int = -1
    started: datetime | None = STARTED
    run_id: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def context(self) -> Any:
        ti = SimpleNamespace(
            id=uuid.uuid4(),
            dag_id="d",
            run_id=self.run_id,
            task_id="t",
            map_index=self.map_index,
            try_number=self.number,
            max_tries=self.max_tries,
            task=SimpleNamespace(retries=2),
        )
        return {"ti": ti, "dag_run": SimpleNamespace(start_date=self.started)}

    def next(self, **changes: Any) -> Try:
        return dataclasses.replace(self, number=self.number + 1, **changes)


@dataclass
class Subject:
    """One kind of store, and what it keeps."""

    kind: str
    settings: Settings
    states: dict[Any, StateStore] = field(default_factory=dict)

    def store(self, of: Try) -> AttemptStore | None:
        settings = of.context
        if self.kind == "Airflow":
            # It belongs to the task instance: a run that is created again has another.
            key = (of.run_id, of.map_index, of.started)
            settings["task_state_store"] = self.states.setdefault(key, StateStore())
        return attempt_store(settings, self.settings)

    def start(self, of: Try, spec: JobSpec = SPEC) -> Attempt:
        """Start an attempt and enqueue its job."""
        attempt = spec.attempt(of.context, time.time() + 60)
        store = self.store(of)
        launch.update(store, attempt)
        job = dataclasses.replace(attempt.job, job_id=f"job-{of.number}")
        attempt = attempt.with_job(job)
        launch.update(store, attempt)
        return attempt

    def found(self, of: Try, spec: JobSpec = SPEC) -> list[Attempt]:
        """Return the earlier attempts that asked for the same, as a retry does."""
        attempt = spec.attempt(of.context, time.time() + 60)
        previous = launch.previous_attempts(self.store(of), spec, of.context, attempt)
        return [each for each in previous if each.is_same_work(attempt)]


def settings_with(redis: RedisConnection | None, **extra: Any) -> Settings:
    connection = RunqyConnection("runqy_default", "http://runqy:3000", **extra)
    return Settings(connection, load_config(), redis)


@pytest.fixture(params=["Airflow", "Redis", "none"])
def subject(request: pytest.FixtureRequest, redis_settings: RedisConnection) -> Subject:
    redis = None if request.param == "none" else redis_settings
    return Subject(request.param, settings_with(redis, callback_secrets=("s" * 32,)))


def test_store_kind_is_the_one_that_is_tested(subject: Subject) -> None:
    kinds = {"Airflow": AirflowStore, "Redis": RedisStore, "none": type(None)}
    assert type(subject.store(Try())) is kinds[subject.kind]


def test_store_first_try_finds_nothing(subject: Subject) -> None:
    assert subject.found(Try()) == []


def test_store_retry_finds_delivery_of_previous_try(subject: Subject) -> None:
    first = Try()
    attempt = subject.start(first)

    [found] = subject.found(first.next())
    assert found.job.delivery_id == attempt.job.delivery_id
    assert found.job.sink == "s3://bucket/prefix"
    assert found.job.runqy_queue == "q.default"


def test_store_third_try_finds_latest_first(subject: Subject) -> None:
    first = Try()
    subject.start(first)
    second = first.next()
    latest = subject.start(second)

    found = subject.found(second.next())
    assert found[0].job.delivery_id == latest.job.delivery_id


@pytest.mark.parametrize(
    "changes",
    [
        {"max_tries": 4},  # a user cleared the task
        {"map_index": 3},
        {"started": datetime(2026, 1, 2, tzinfo=timezone.utc)},  # created again
        {"run_id": "another"},
    ],
)
def test_store_other_work_is_not_found(
    subject: Subject, changes: dict[str, Any]
) -> None:
    first = Try()
    attempt = subject.start(first)

    ids = {each.job.delivery_id for each in subject.found(first.next(**changes))}
    assert attempt.job.delivery_id not in ids


def test_store_other_payload_is_not_found(subject: Subject) -> None:
    first = Try()
    attempt = subject.start(first)
    other = dataclasses.replace(SPEC, payload={"n": 2})

    ids = {each.job.delivery_id for each in subject.found(first.next(), other)}
    assert attempt.job.delivery_id not in ids


def test_store_two_tries_have_two_deliveries(subject: Subject) -> None:
    first = Try()
    one, two = subject.start(first), subject.start(first.next())

    assert one.job.delivery_id != two.job.delivery_id


def test_store_abandoned_attempt_is_marked_where_there_is_a_record(
    subject: Subject,
) -> None:
    first = Try()
    subject.start(first)
    launch.abandon(subject.store(first))

    [found] = subject.found(first.next())
    assert found.is_abandoned == (subject.kind != "none")
    assert (found.job.job_id == "job-1") == (subject.kind != "none")


def test_store_run_without_start_date_retry_finds_no_other_work(
    subject: Subject,
) -> None:
    """Then the id of the try tells it from all others."""
    one, two = Try(started=None), Try(started=None)
    attempts = [subject.start(one), subject.start(two)]

    assert len({attempt.job.delivery_id for attempt in attempts}) == 2


def test_redis_store_record_lives_for_a_day_at_least(
    redis_settings: RedisConnection, redis_url: str
) -> None:
    settings = settings_with(redis_settings, callback_secrets=("s" * 32,))
    subject, first = Subject("Redis", settings), Try()
    subject.start(first)
    store = subject.store(first)
    assert isinstance(store, RedisStore)

    with Redis.from_url(redis_url) as redis:
        assert SHORTEST_TTL - 60 < redis.ttl(store.key) <= 2 * SHORTEST_TTL


def test_redis_store_unavailable_refuses_to_start_and_to_retry(
    unreachable_redis: RedisConnection, caplog: pytest.LogCaptureFixture
) -> None:
    settings = settings_with(unreachable_redis, callback_secrets=("s" * 32,))
    subject, first = Subject("Redis", settings), Try()
    attempt = SPEC.attempt(first.context, time.time() + 60)
    store = subject.store(first)
    assert store is not None

    with pytest.raises(SinkUnavailable, match="nothing was enqueued"):
        store.write(attempt.to_json(), attempt.expires)
    with pytest.raises(SinkUnavailable, match="nothing was enqueued"):
        launch.recorded(store)
    launch.update(store, attempt)
    launch.abandon(store)
    assert "A retry will not find the job of this attempt" in caplog.text
    assert "A retry will wait for the job of this attempt" in caplog.text


def test_redis_that_airflow_made_up_is_not_used(
    unreachable_redis: RedisConnection, caplog: pytest.LogCaptureFixture
) -> None:
    """Airflow makes a connection ``redis_default``, which often leads nowhere."""
    caplog.set_level(logging.INFO)
    unused, named = (
        settings_with(unreachable_redis),
        settings_with(unreachable_redis, redis_conn_id="ours"),
    )
    assert attempt_store(Try().context, unused) is None
    assert caplog.text == ""
    assert attempt_store(Try(number=2).context, unused) is None
    assert "Set redis_conn_id" in caplog.text
    assert isinstance(attempt_store(Try().context, named), RedisStore)
