"""A task with a batch, without Airflow's task runner and without servers."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import TaskDeferred

from runqy_provider.jobs.attempt_store import ATTEMPT_KEY
from runqy_provider.jobs.batch.progress import BatchProgress
from runqy_provider.operators.runqy_batch import RunqyBatchOperator
from runqy_provider.waiters.waiter import close_waiters
from tests.support.caches import clear_settings
from tests.unit.fake_airflow import TaskStateStore

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.fake_runqy import FakeRunqy

SOON = timedelta(seconds=0.2)


def handle(payload: dict[str, Any]) -> Any:
    """Return the value of a payload, or fail with its error."""
    if "error" in payload:
        raise ValueError(payload["error"])
    return payload["value"]


def numbers(count: int) -> list[dict[str, Any]]:
    """Return payloads whose jobs return their number."""
    return [{"value": number} for number in range(count)]


@dataclass
class BatchTask:
    """A task instance of a RunqyBatchOperator, between its executions."""

    server: FakeRunqy
    operator: RunqyBatchOperator
    store: TaskStateStore = field(default_factory=TaskStateStore)
    xcoms: dict[str, Any] = field(default_factory=dict)
    try_number: int = 1
    max_tries: int = 3
    deferred: TaskDeferred | None = None

    @property
    def context(self) -> Any:
        ti = SimpleNamespace(
            dag_id="d",
            run_id="r",
            task_id="t",
            map_index=-1,
            try_number=self.try_number,
            max_tries=self.max_tries,
            xcom_push=lambda key, value: self.xcoms.update({key: value}),
        )
        run = SimpleNamespace(start_date=datetime(2026, 1, 1, tzinfo=timezone.utc))
        return {"ti": ti, "dag_run": run, "task_state_store": self.store}

    @property
    def batch(self) -> BatchProgress:
        """How far the batch is, as it is recorded."""
        return BatchProgress.from_json(self.store[ATTEMPT_KEY]["batch"])

    def run(self) -> Any:
        """Run the task to its end, with all deferrals; return its value."""
        self.start()
        while self.deferred is not None:
            self.resume(self.fire())
        return self.value

    def start(self) -> None:
        """Run the task until it defers, or ends."""
        self._go(lambda: self.operator._start(self.context).execute())

    def resume(self, event: dict[str, Any]) -> None:
        """Continue the task with the event of its trigger."""
        self._go(lambda: self.operator._start(self.context).resume(event))

    def fire(self) -> dict[str, Any]:
        """Run the trigger of the deferral until its event."""
        assert self.deferred is not None
        trigger: Any = self.deferred.trigger

        async def first_event() -> Any:
            try:
                return (await anext(trigger.run())).payload
            finally:
                await close_waiters()

        event: dict[str, Any] = asyncio.run(first_event())
        return event

    def retry(self, *, is_cleared: bool = False) -> Any:
        """Run the next attempt to its end: a retry, or after a clear."""
        if is_cleared:
            self.max_tries += self.try_number
        self.try_number += 1
        return self.run()

    def _go(self, step: Any) -> None:
        self.deferred = None
        try:
            self.value = step()
        except TaskDeferred as deferred:
            self.deferred = deferred


@pytest.fixture(params=["http", "redis"])
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The transport of the connection: each test runs with both."""
    set_connection(monkeypatch, transport=request.param)
    return str(request.param)


def set_connection(monkeypatch: pytest.MonkeyPatch, **extra: Any) -> None:
    """Give Airflow the runqy connection, and that of a Redis that is never asked."""
    extra = {"runqy_redis_conn_id": "redis_default", **extra}
    runqy = {"conn_type": "runqy", "host": "runqy", "extra": extra}
    redis = {"conn_type": "redis", "host": "127.0.0.1"}
    monkeypatch.setenv("AIRFLOW_CONN_RUNQY_DEFAULT", json.dumps(runqy))
    monkeypatch.setenv("AIRFLOW_CONN_REDIS_DEFAULT", json.dumps(redis))
    clear_settings()


@pytest.fixture
def server(server: FakeRunqy, monkeypatch: pytest.MonkeyPatch) -> FakeRunqy:
    """A server whose worker runs each job as soon as it is enqueued."""
    set_connection(monkeypatch)
    # The jobs themselves are not observed, and tasks are resumed at once.
    monkeypatch.setenv("AIRFLOW__RUNQY__WATCH_SECONDS", "0")
    monkeypatch.setenv("AIRFLOW__RUNQY__SETTLE_SECONDS", "0")
    monkeypatch.setenv("AIRFLOW__RUNQY__OBJECT_SWEEP_SECONDS", "0.05")
    server.handler = handle
    return server


@pytest.fixture
def task_of(server: FakeRunqy, tmp_path: Path) -> Any:
    """Make a task with these payloads, which delivers into a folder."""

    def make(payloads: Any, **arguments: Any) -> BatchTask:
        arguments = {"defer_after": timedelta(0), **arguments}
        with DAG("d", schedule=None):
            operator = RunqyBatchOperator(
                task_id="t",
                runqy_queue="q",
                payloads=payloads,
                **{"sink": f"file://{tmp_path}", **arguments},
            )
        return BatchTask(server, operator)

    return make
