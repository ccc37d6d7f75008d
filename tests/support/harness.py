"""Run one task through Airflow's real task runner, without a database.

Airflow's client uses a small execution API here, which stores XComs and, on resume,
returns the next method and its arguments, as the real one does.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import uuid
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from airflow.sdk import DAG, BaseOperator
from airflow.sdk.api.client import Client
from airflow.sdk.api.datamodels._generated import DagRun, TaskInstance
from airflow.sdk.bases.operator import TRIGGER_FAIL_REPR, TriggerFailureReason

from runqy_provider.inbox import keys
from runqy_provider.jobs.attempt_store import ATTEMPT_KEY, record_name
from runqy_provider.operators.runqy import RunqyOperator
from runqy_provider.redis_client import client as redis_client
from runqy_provider.settings import load_settings
from runqy_provider.triggers.delivery import DeliveryTrigger
from runqy_provider.waiters.waiter import close_waiters
from tests.support.versions import (
    HAS_STATE_STORE,
    DagBag,
    http,
    known_fields,
    next_kwargs,
    run_task_in_process,
    through_database,
    to_database,
)

if TYPE_CHECKING:
    from airflow.triggers.base import BaseTrigger

_NO_BODY = ("PATCH", "PUT", "DELETE")
_DAY = "2026-01-01T00:00:00+00:00"


def run_of(payload: Any = None, runqy_queue: str = "helper", **arguments: Any) -> Run:
    """Return a run of one RunqyOperator, which polls once and then defers."""
    arguments = {"defer_after": timedelta(0), **arguments}
    with DAG("d", schedule=None):
        task = RunqyOperator(
            task_id="t", runqy_queue=runqy_queue, payload=payload, **arguments
        )
    return Run(task)


def outcomes_of_example(dag_id: str) -> dict[str, Any]:
    """Run all tasks of an example DAG, and return their return values by task id."""
    path = Path(__file__).parents[2] / "dags" / f"{dag_id}.py"
    outcomes = {}
    for task in DagBag(path).dags[dag_id].tasks:
        assert isinstance(task, BaseOperator)
        outcomes[task.task_id] = outcome_of(Run(task))
    return outcomes


def started(run: Run) -> Run:
    """Start a task, and check that it deferred."""
    run.execute()
    assert run.state == "deferred", run.last
    return run


def outcome_of(run: Run) -> Any:
    """Run a task to its end, with or without deferral; raise its error if it fails."""
    run.execute()
    if run.state == "deferred":
        run.resume(run.fire())
    if run.state == "failed":
        raise run.error
    return run.value


@dataclass
class Run:
    """A task instance between its executions.

    Args:
        task: The operator, in a DAG.
        try_number: The number of the attempt, from 1.
        map_index: The index of a mapped task; -1 if it is not mapped.
    """

    task: BaseOperator
    try_number: int = 1
    map_index: int = -1
    run_id: str = field(default_factory=lambda: f"run_{uuid.uuid4().hex}")
    xcoms: dict[str, Any] = field(default_factory=dict)
    store: dict[str, Any] = field(default_factory=dict)
    max_tries: int = 0
    #: When the DAG run started: two runs never start at the same moment.
    started_at: datetime = field(default_factory=lambda: datetime.now(timezone.utc))
    next: tuple[str, Any] | None = None
    last: Any = None

    def execute(self) -> Run:
        """Run the task from its start, or continue it after its deferral."""
        client = Client(
            base_url=None,
            dry_run=True,
            token="",
            transport=http.MockTransport(self._answer),
        )
        ti = known_fields(
            TaskInstance,
            id=uuid.uuid4(),
            task_id=self.task.task_id,
            dag_id=self.task.dag_id,
            run_id=self.run_id,
            try_number=self.try_number,
            map_index=self.map_index,
            dag_version_id=uuid.uuid4(),
        )
        self.last = run_task_in_process(ti, self.task, client=client)
        return self

    @property
    def state(self) -> str:
        """The state that the task ended in."""
        state = self.last.state
        return str(getattr(state, "value", state))

    @property
    def error(self) -> BaseException:
        """The error that the task failed with."""
        error = self.last.error
        assert isinstance(error, BaseException)
        return error

    @property
    def value(self) -> Any:
        """The return value of the task, as XCom has it."""
        return self.xcoms.get("return_value")

    @property
    def trigger(self) -> DeliveryTrigger:
        """The trigger of the deferral, after serialization for Airflow's database."""
        trigger = self.any_trigger
        assert isinstance(trigger, DeliveryTrigger)
        return trigger

    @property
    def any_trigger(self) -> BaseTrigger:
        """The same, of any class."""
        message = self.last.msg
        module, name = message.classpath.rsplit(".", 1)
        trigger = getattr(importlib.import_module(module), name)
        made: BaseTrigger = trigger(**through_database(message.trigger_kwargs))
        return made

    @property
    def timeout(self) -> Any:
        """The timeout of the deferral."""
        return self.last.msg.trigger_timeout

    def fire(self, trigger: BaseTrigger | None = None) -> dict[str, Any]:
        """Run the trigger until its first event, and return the event's payload."""
        waiting = trigger or self.any_trigger

        async def first_event() -> Any:
            try:
                async for event in waiting.run():
                    return event.payload
                raise AssertionError("the trigger ended without an event")
            finally:
                # This event loop ends now, unlike that of a triggerer.
                await close_waiters()

        payload: dict[str, Any] = asyncio.run(first_event())
        return payload

    def resume(self, event: dict[str, Any]) -> Run:
        """Continue the task with the event of its trigger."""
        message = self.last.msg
        self.next = (message.next_method, next_kwargs(message.next_kwargs or {}, event))
        return self.execute()

    def time_out(self) -> Run:
        """Continue the task as Airflow does when the deferral times out."""
        reason = {"error": TriggerFailureReason.TRIGGER_TIMEOUT.value}
        self.next = (TRIGGER_FAIL_REPR, to_database(reason))
        return self.execute()

    def _answer(self, request: Any) -> Any:
        path = request.url.path
        if path.endswith("/run"):
            return http.Response(200, json=self._context())
        if "/xcoms/" in path and request.method in ("GET", "POST"):
            return self._xcom(path.rsplit("/", 1)[1], request)
        if "/store/ti/" in path:
            return self._store(path.rsplit("/", 1)[1], request)
        if request.method in _NO_BODY:
            return http.Response(204)
        if "/connections/" in path:
            return http.Response(404, json={"detail": {"reason": "not_found"}})
        return http.Response(200, json={})

    @property
    def record(self) -> dict[str, Any]:
        """The record of this attempt for the next one."""
        if HAS_STATE_STORE:
            return dict(self.store[ATTEMPT_KEY])
        with self._redis() as redis:
            return dict(json.loads(redis.get(self._record_key)))

    def write_record(self, record: dict[str, Any]) -> None:
        """Write the record that the next attempt finds."""
        if HAS_STATE_STORE:
            self.store[ATTEMPT_KEY] = record
            return
        with self._redis() as redis:
            redis.set(self._record_key, json.dumps(record))

    def change_record(self, **fields: Any) -> None:
        """Change fields of the record for the next attempt."""
        self.write_record({**self.record, **fields})

    @property
    def _record_key(self) -> str:
        ti = SimpleNamespace(
            dag_id=self.task.dag_id,
            run_id=self.run_id,
            task_id=self.task.task_id,
            map_index=self.map_index,
        )
        return keys.attempt("runqy_default", record_name(ti, self.started_at))

    @staticmethod
    def _redis() -> Any:
        connection = load_settings("runqy_default").redis
        assert connection is not None
        return redis_client(connection)

    def _xcom(self, key: str, request: Any) -> Any:
        if request.method == "POST":
            self.xcoms[key] = json.loads(request.content)
            return http.Response(201, json={"message": "stored"})
        if key not in self.xcoms:
            return http.Response(404, json={"detail": {"reason": "not_found"}})
        return http.Response(200, json={"key": key, "value": self.xcoms[key]})

    def _store(self, key: str, request: Any) -> Any:
        if request.method == "PUT":
            self.store[key] = json.loads(request.content)["value"]
            return http.Response(204)
        if key not in self.store:
            return http.Response(404, json={"detail": {"reason": "not_found"}})
        return http.Response(200, json={"value": self.store[key]})

    def retried(self, *, is_cleared: bool = False) -> Run:
        """Return the next try of this task instance: a retry, or after a clear."""
        tries = self.try_number
        return Run(
            self.task,
            try_number=tries + 1,
            map_index=self.map_index,
            run_id=self.run_id,
            store=self.store,
            max_tries=tries if is_cleared else self.max_tries,
            started_at=self.started_at,
        )

    def _context(self) -> dict[str, Any]:
        times = dict.fromkeys(("logical_date", "run_after"), _DAY)
        empty = dict.fromkeys(
            ("data_interval_start", "data_interval_end", "end_date", "partition_key")
        )
        dag_run: dict[str, Any] = {
            "dag_id": self.task.dag_id,
            "run_id": self.run_id,
            "run_type": "manual",
            "state": "running",
            "consumed_asset_events": [],
            "start_date": self.started_at.isoformat(),
            **times,
            **empty,
        }
        # An older Airflow does not accept fields that it does not know.
        dag_run = {k: v for k, v in dag_run.items() if k in DagRun.model_fields}
        context: dict[str, Any] = {
            "dag_run": dag_run,
            "max_tries": self.max_tries,
            "should_retry": False,
        }
        if self.next is not None:
            context["next_method"], context["next_kwargs"] = self.next
        return context
