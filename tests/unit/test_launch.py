"""Which attempt a task waits for: an earlier one, or one that begins now."""

from __future__ import annotations

import dataclasses
import time
import uuid
from dataclasses import dataclass, field
from datetime import datetime, timezone
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from runqy_provider.airflow_compat import identity_of
from runqy_provider.client import models as states
from runqy_provider.config import Config
from runqy_provider.connections import RunqyConnection
from runqy_provider.errors import (
    JobVanished,
    Misconfigured,
    NoAccess,
    NotThere,
    ResultLost,
    RunqyError,
    ServerUnavailable,
    SinkUnavailable,
)
from runqy_provider.hooks.runqy import RunqyHook
from runqy_provider.jobs import launch
from runqy_provider.jobs.attempt_store import ATTEMPT_KEY, attempt_store
from runqy_provider.jobs.launch import Attempt, JobSpec, abandon, reattach_or_submit
from runqy_provider.models import DEADLINE, ERROR, DeliveryEvent
from runqy_provider.redis_connection import RedisConnection
from runqy_provider.settings import Settings
from runqy_provider.sinks.registry import sink_from_uri
from tests.unit.fake_airflow import TaskStateStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from runqy_provider.models import JobRef
    from tests.unit.fake_runqy import FakeRunqy

RUNQY_REDIS = RedisConnection("runqy_redis", "127.0.0.1:1/0", ())


def task_instance() -> SimpleNamespace:
    return SimpleNamespace(
        id=uuid.uuid4(),
        dag_id="d",
        run_id="r",
        task_id="t",
        map_index=-1,
        try_number=1,
        max_tries=3,
        task=SimpleNamespace(retries=3),
    )


@dataclass
class Task:
    """A task instance, and what its DAG says.

    Attributes:
        store: What Airflow keeps for the next attempt.
        has_store: Whether it keeps that: Airflow 3.3 and newer.
        deletes: Whether it deletes jobs that no attempt waits for.
    """

    server: FakeRunqy
    folder: Path
    settings: Settings
    payload: dict[str, Any] = field(default_factory=lambda: {"n": 1})
    ti: SimpleNamespace = field(default_factory=task_instance)
    started_at: datetime = datetime(2026, 1, 1, tzinfo=timezone.utc)
    store: TaskStateStore = field(default_factory=TaskStateStore)
    has_store: bool = True
    deletes: bool = True

    @property
    def context(self) -> Any:
        run = SimpleNamespace(start_date=self.started_at)
        store = self.store if self.has_store else None
        return {"ti": self.ti, "dag_run": run, "task_state_store": store}

    @property
    def spec(self) -> JobSpec:
        sink = sink_from_uri(f"file://{self.folder}")
        return JobSpec("runqy_default", "q", self.payload, sink, deletes=self.deletes)

    def attempt(self, **arguments: Any) -> JobRef:
        """Begin an attempt; return the job that it waits for."""
        arguments = {"deadline": time.time() + 60, **arguments}
        found = reattach_or_submit(self.context, self.settings, self.spec, **arguments)
        return found.job

    def retry(self, *, is_cleared: bool = False, **arguments: Any) -> JobRef:
        """Begin the next attempt: a retry, or after a clear."""
        if is_cleared:
            self.ti.max_tries += self.ti.try_number
        self.ti.try_number += 1
        return self.attempt(**arguments)

    def change_record(self, **fields: Any) -> None:
        """Change what the attempt has left for the next one."""
        self.record.update(fields)

    @property
    def record(self) -> dict[str, Any]:
        """What the attempt has left for the next one."""
        return cast("dict[str, Any]", self.store[ATTEMPT_KEY])


@pytest.fixture
def settings() -> Settings:
    connection = RunqyConnection("runqy_default", "http://runqy")
    return Settings(connection, Config(), runqy_redis=RUNQY_REDIS)


@pytest.fixture
def task(server: FakeRunqy, settings: Settings, tmp_path: Path) -> Task:
    return Task(server, tmp_path, settings)


@pytest.fixture
def look_says(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let each look at the sink end like this, as one that is unavailable does."""

    def set_answer(kind: str, **fields: Any) -> None:
        monkeypatch.setattr(
            launch, "look_once", lambda _, job: DeliveryEvent(job, kind, **fields)
        )

    return set_answer


@pytest.mark.parametrize(
    "state", [states.PENDING, states.ACTIVE, states.RETRY, states.SCHEDULED]
)
def test_retry_job_that_has_not_ended_is_waited_for(task: Task, state: str) -> None:
    first = task.attempt()
    assert first.job_id is not None
    task.server.set_state(first.job_id, state)

    assert task.retry() == first
    assert len(task.server.enqueued) == 1


@pytest.mark.parametrize("state", [states.COMPLETED, states.ARCHIVED, None])
def test_retry_job_that_ended_without_a_result_enqueues_new_job(
    task: Task, state: str | None
) -> None:
    first = task.attempt()
    assert first.job_id is not None
    if state is None:
        del task.server.jobs[first.job_id]
    else:
        task.server.set_state(first.job_id, state)

    assert task.retry().job_id != first.job_id


def test_retry_result_of_forgotten_job_is_waited_for(task: Task) -> None:
    first = task.attempt()
    task.server.run(str(first.job_id), lambda _: 5)
    task.server.jobs.clear()

    assert task.retry() == first


def test_retry_failure_delivered_enqueues_new_job(task: Task) -> None:
    def fail(_: Any) -> None:
        raise ValueError("too dark")

    first = task.attempt()
    task.server.run(str(first.job_id), fail)

    assert task.retry().job_id != first.job_id


def test_retry_result_delivered_between_the_looks_is_waited_for(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = task.attempt()
    get_job = task.server.get_job

    def get_ended_job(_self: Any, job_id: str) -> states.Job:
        task.server.run(job_id, lambda _: 5)
        return get_job(job_id)

    monkeypatch.setattr(RunqyHook, "get_job", get_ended_job)

    assert task.retry() == first


@pytest.mark.parametrize("has_result", [True, False])
def test_clear_enqueues_new_job(task: Task, *, has_result: bool) -> None:
    first = task.attempt()
    if has_result:
        task.server.run(str(first.job_id), lambda _: 5)

    assert task.retry(is_cleared=True).job_id != first.job_id
    assert (first.job_id in task.server.jobs) is has_result, "deleted if pending"


def test_clear_after_retries_were_lowered_enqueues_new_job(task: Task) -> None:
    """The clear raises Airflow's max_tries by as much as the change lowered it."""
    first = task.attempt()
    task.server.run(str(first.job_id), lambda _: 5)
    task.ti.task.retries = 2

    assert task.retry().job_id != first.job_id


def test_retry_after_retries_were_lowered_waits_for_pending_job(task: Task) -> None:
    first = task.attempt()
    task.ti.task.retries = 2

    assert task.retry() == first


def test_retry_payload_changed_replaces_pending_job(task: Task) -> None:
    first = task.attempt()
    task.payload = {"n": 2}

    assert task.retry().job_id != first.job_id
    assert first.job_id not in task.server.jobs


@pytest.mark.parametrize("how", ["cleared", "abandoned", "expired", "reattach off"])
@pytest.mark.parametrize("deletes", [True, False])
def test_retry_job_not_waited_for_any_more_is_deleted(
    how: str, task: Task, *, deletes: bool
) -> None:
    task.deletes = deletes
    first = task.attempt()
    if how == "expired":
        task.change_record(expires=time.time() - 1)
    if how == "abandoned":
        abandon(attempt_store(task.context, task.settings))
    second = task.retry(is_cleared=how == "cleared", reattach=how != "reattach off")

    assert second.job_id != first.job_id
    assert (first.job_id in task.server.jobs) is not deletes


def test_retry_job_that_runs_and_is_not_waited_for_is_not_deleted(task: Task) -> None:
    first = task.attempt()
    task.server.set_state(str(first.job_id), states.ACTIVE)
    task.retry(is_cleared=True)

    assert first.job_id in task.server.jobs


def test_retry_job_id_not_recorded_finds_job_in_redis(task: Task) -> None:
    first = task.attempt()
    task.change_record(job_id=None)  # as if killed before runqy's response

    assert task.retry() == first
    assert task.record["job_id"] == first.job_id


def test_retry_job_id_not_recorded_and_job_not_enqueued_enqueues_it(
    task: Task,
) -> None:
    first = task.attempt()
    task.change_record(job_id=None)
    task.server.jobs.clear()

    assert task.retry().job_id not in {None, first.job_id}


@pytest.mark.parametrize("has_result", [True, False])
def test_retry_job_id_not_recorded_without_redis_takes_result_if_there(
    task: Task, *, has_result: bool
) -> None:
    first = task.attempt()
    task.change_record(job_id=None)
    task.settings = dataclasses.replace(task.settings, runqy_redis=None)
    if has_result:
        task.server.run(str(first.job_id), lambda _: 5)

    second = task.retry()

    assert (second.delivery_id == first.delivery_id) is has_result
    assert len(task.server.enqueued) == (1 if has_result else 2)


def test_retry_server_unavailable_enqueues_nothing(task: Task) -> None:
    first = task.attempt()
    task.server.error = ServerUnavailable("runqy is away.")
    with pytest.raises(ServerUnavailable):
        task.retry()

    task.server.error = None
    assert task.retry() == first


def test_submit_refused_leaves_record_without_job(task: Task) -> None:
    task.server.error = ServerUnavailable("runqy is away.")
    with pytest.raises(ServerUnavailable):
        task.attempt()

    assert task.record["job_id"] is None


@pytest.mark.parametrize("is_running", [True, False])
def test_retry_sink_unavailable_waits_only_for_job_that_runs(
    task: Task, look_says: Callable[..., None], *, is_running: bool
) -> None:
    first = task.attempt()
    look_says(DEADLINE, unreadable_because="Redis is away.")
    if is_running:
        assert task.retry() == first
        return
    task.server.jobs.clear()
    with pytest.raises(SinkUnavailable, match="nothing was enqueued"):
        task.retry()
    assert len(task.server.enqueued) == 1


@pytest.mark.parametrize("error", [JobVanished, ResultLost])
def test_retry_result_lost_enqueues_new_job(
    task: Task, look_says: Callable[..., None], error: type[RunqyError]
) -> None:
    first = task.attempt()
    look_says(ERROR, error=error.__name__)
    task.server.jobs.clear()

    assert task.retry().job_id != first.job_id


@pytest.mark.parametrize("error", [Misconfigured, NotThere, NoAccess])
def test_retry_sink_that_cannot_be_used_enqueues_nothing(
    task: Task, look_says: Callable[..., None], error: type[RunqyError]
) -> None:
    task.attempt()
    look_says(ERROR, error=error.__name__)
    with pytest.raises(error):
        task.retry()

    assert len(task.server.enqueued) == 1


def test_retry_sink_that_needs_an_unknown_job_id_enqueues_new_job(
    task: Task, look_says: Callable[..., None]
) -> None:
    """As ``redis_storage``, where a job has its result under its own id."""
    first = task.attempt()
    task.change_record(job_id=None)
    task.server.jobs.clear()
    look_says(ERROR, error="Misconfigured")

    assert task.retry().job_id != first.job_id


def test_retry_unreadable_record_enqueues_new_job(task: Task) -> None:
    task.store[ATTEMPT_KEY] = {"something": "else"}

    assert task.attempt().job_id == "job-0"


def test_attempt_id_with_a_delivery_is_not_used_again(task: Task) -> None:
    """As in a loop whose iterations Airflow does not tell apart by run and task."""
    first = task.attempt()
    task.server.run(str(first.job_id), lambda _: 5)
    task.store.clear()
    again = task.attempt()

    assert again.delivery_id != first.delivery_id
    assert task.record["delivery_id"] == again.delivery_id


def test_attempt_store_unavailable_enqueues_nothing(task: Task) -> None:
    task.store.is_available = False
    with pytest.raises(SinkUnavailable):
        task.attempt()

    assert task.server.enqueued == []


def test_attempt_store_unavailable_after_the_enqueue_is_logged(
    task: Task, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def enqueue(*args: Any, **options: Any) -> states.Job:
        task.store.is_available = False
        return task.server.enqueue(*args, **options)

    monkeypatch.setattr(RunqyHook, "enqueue", staticmethod(enqueue))

    assert task.attempt().job_id == "job-0"
    assert "retry" in caplog.text


def test_abandon_store_unavailable_is_logged(
    task: Task, caplog: pytest.LogCaptureFixture
) -> None:
    task.attempt()
    task.store.is_available = False

    abandon(attempt_store(task.context, task.settings))
    assert "retry" in caplog.text


def test_retry_without_a_store_takes_result_of_any_earlier_attempt(
    task: Task, caplog: pytest.LogCaptureFixture
) -> None:
    task.has_store = False
    task.settings = dataclasses.replace(task.settings, runqy_redis=None)
    first = task.attempt()
    second = task.retry()
    task.server.run(str(first.job_id), lambda _: 5)
    third = task.retry()

    assert second.delivery_id != first.delivery_id == third.delivery_id
    assert "Set redis_conn_id" in caplog.text


def test_retry_without_a_store_finds_job_in_runqys_redis(
    task: Task, caplog: pytest.LogCaptureFixture
) -> None:
    task.has_store = False
    first = task.attempt()

    assert task.retry().job_id == first.job_id
    assert "Set redis_conn_id" not in caplog.text


@pytest.mark.parametrize("chooses_id", [True, False])
def test_attempt_job_has_id_of_delivery_only_if_it_can_be_chosen(
    task: Task, *, chooses_id: bool
) -> None:
    attempt = task.spec.attempt(task.context, 0.0, chooses_id=chooses_id)
    again = attempt.with_new_id()

    for job in (attempt.job, again.job):
        assert job.job_id == (job.delivery_id if chooses_id else None)
    assert again.job.delivery_id != attempt.job.delivery_id


def test_attempt_record_is_read_back(task: Task) -> None:
    attempt = task.spec.attempt(task.context, 5.0)

    assert Attempt.from_json(attempt.to_json()) == attempt


def _delivery_id(task: Task, **fields: Any) -> str:
    for name, value in fields.items():
        setattr(task.ti, name, value)
    return task.spec.attempt(task.context, 0.0).job.delivery_id


def test_delivery_id_differs_by_try_position_and_run(task: Task) -> None:
    ids = [
        _delivery_id(task),
        _delivery_id(task, try_number=2),
        _delivery_id(task, map_index=0),
        _delivery_id(task, map_index=1),
        _delivery_id(task, max_tries=4),
    ]
    task.started_at = datetime(2026, 1, 2, tzinfo=timezone.utc)
    ids.append(_delivery_id(task))
    task.payload = {"n": 2}
    ids.append(_delivery_id(task))

    assert len(set(ids)) == len(ids)
    assert ids[-1] == _delivery_id(task), "a retry computes it again"


def test_identity_tells_iterations_of_a_loop_apart() -> None:
    def ti(**fields: Any) -> SimpleNamespace:
        place = {"dag_id": "d", "run_id": "r", "task_id": "t", "map_index": -1}
        return SimpleNamespace(**place, **fields)

    old, region = identity_of(ti()), uuid.uuid4()
    outside = identity_of(ti(region_id=uuid.UUID(int=0), region_index=-1))
    inside = [identity_of(ti(region_id=region, region_index=n)) for n in range(3)]

    assert old == outside == ["d", "r", "t", -1]
    assert len({str(each) for each in [old, *inside]}) == 4
