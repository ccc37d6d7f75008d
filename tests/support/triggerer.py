"""Airflow's real triggerer, without a database: ``-m tests.support.triggerer``.

It runs in a process of its own because it forks, and forking pytest's process, which
has threads and open connections, is not safe.
"""

from __future__ import annotations

import functools
import json
import sys
import time
import uuid
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import structlog
from airflow.jobs.triggerer_job_runner import TriggerRunnerSupervisor
from airflow.models.trigger import Trigger
from airflow.sdk.api.client import Client

from runqy_provider.airflow_compat import RELEASE
from tests.support.versions import RunTrigger, TaskInstanceDTO, http, known_fields


@attrs.define(kw_only=True)
class Triggerer(TriggerRunnerSupervisor):
    """Runs the triggers of the spec; records their events and their requests."""

    wanted: dict[int, tuple[str, dict[str, Any]]] = attrs.field(factory=dict)
    connections: dict[str, dict[str, Any]] = attrs.field(factory=dict)
    fired: dict[int, Any] = attrs.field(factory=dict)
    failed: dict[int, Any] = attrs.field(factory=dict)
    asked: list[str] = attrs.field(factory=list)
    #: XComs that were written, by task id and key, with the query of the request.
    xcoms: dict[str, dict[str, Any]] = attrs.field(factory=dict)
    #: The key of an XCom that the API refuses, by task id.
    refused: dict[str, str] = attrs.field(factory=dict)
    #: When each trigger fired, in seconds since 1970.
    fired_at: dict[int, float] = attrs.field(factory=dict)
    #: How often a trigger fired, all triggers together.
    firings: int = 0
    #: The answers about each trigger's task, by task id: pairs of its state and the job
    #: in its XCom. The last pair is given again and again.
    tasks: dict[str, list[tuple[str | None, str | None]]] = attrs.field(factory=dict)
    #: How many of these pairs were read, by task id.
    reads: dict[str, int] = attrs.field(factory=dict)

    def make_client(self) -> Client:
        return Client(
            base_url=None,
            dry_run=True,
            token="",
            transport=http.MockTransport(self._answer),
        )

    def _answer(self, request: Any) -> Any:
        path = request.url.path
        if path.endswith("/states"):
            task_id = request.url.params["task_ids"]
            state, _ = self.tasks[task_id][0]
            job_states = {} if state == "deleted" else {task_id: state}
            return http.Response(200, json={"task_states": {"r": job_states}})
        if "/xcoms/" in path:
            is_write = request.method == "POST"
            return self._write(request) if is_write else self._read(request)
        conn_id = request.url.path.rsplit("/", 1)[1]
        self.asked.append(conn_id)
        known = self.connections.get(conn_id)
        if known is None:
            detail = {"reason": "not_found", "message": conn_id}
            return http.Response(404, json={"detail": detail})
        fields = dict.fromkeys(("host", "login", "password", "schema", "port"))
        extra = json.dumps(known.get("extra", {}))
        return http.Response(
            200, json={**fields, **known, "conn_id": conn_id, "extra": extra}
        )

    def _read(self, request: Any) -> Any:
        task_id = request.url.path.split("/")[-2]
        self.reads[task_id] = self.reads.get(task_id, 0) + 1
        answers = self.tasks.get(task_id, [(None, None)])
        _, job = answers.pop(0) if len(answers) > 1 else answers[0]
        if job is None:
            return http.Response(404, json={"detail": {"reason": "not_found"}})
        value = {"key": "runqy_job", "value": {"job_id": job}}
        return http.Response(200, json=value)

    def _write(self, request: Any) -> Any:
        task_id, key = request.url.path.split("/")[-2:]
        if key == self.refused.get(task_id):
            detail = {"reason": "refused", "message": "refused by the test"}
            return http.Response(403, json={"detail": detail})
        value = json.loads(request.content)
        query = dict(request.url.params)
        self.xcoms.setdefault(task_id, {})[key] = {"value": value, "query": query}
        return http.Response(201, json={"message": "stored"})

    def load_triggers(self) -> None:
        self.update_triggers(set(self.wanted))

    def fetch_trigger_assignments(self, _: set[int]) -> dict[int, int | None]:
        return {}  # from 3.4 on: no other triggerer has them

    def build_trigger_workloads(self, ids: Any) -> list[Any]:
        return [
            RunTrigger(
                id=number,
                classpath=self.wanted[number][0],
                encrypted_kwargs=_encrypted(self.wanted[number][1]),
                ti=_task_instance(f"t{number}"),
            )
            for number in ids
        ]

    def on_trigger_event(self, trigger_id: int, event: Any) -> None:
        self.fired[trigger_id] = event.payload
        self.fired_at[trigger_id] = time.time()
        self.firings += 1
        self.wanted.pop(trigger_id, None)

    def on_trigger_failure(self, trigger_id: int, exc: Any) -> None:
        self.failed[trigger_id] = exc
        self.wanted.pop(trigger_id, None)

    def clean_unused(self) -> None: ...

    def heartbeat(self) -> None: ...

    def metric_tags(self) -> dict[str, str]:
        return {"hostname": "test"}


@attrs.define(kw_only=True)
class OldTriggerer(Triggerer):
    """The same before 3.3, when the supervisor itself used the database."""

    @functools.cached_property
    def client(self) -> Client:
        return self.make_client()

    def update_triggers(self, requested: set[int]) -> None:
        known = self.running_triggers | self.cancelling_triggers
        known |= {event[0] for event in self.events}
        known |= {failed[0] for failed in self.failed_triggers}
        known |= {workload.id for workload in self.creating_triggers}
        self.creating_triggers.extend(self.build_trigger_workloads(requested - known))
        self.cancelling_triggers.update(self.running_triggers - requested)

    def handle_events(self) -> None:
        while self.events:
            number, event, *_ = self.events.popleft()
            self.on_trigger_event(number, event)

    def handle_failed_triggers(self) -> None:
        while self.failed_triggers:
            self.on_trigger_failure(*self.failed_triggers.popleft())

    def emit_metrics(self) -> None: ...

    def run_once(self) -> None:
        if not self.is_alive():
            raise RuntimeError("the triggers' process has ended")
        self.load_triggers()
        self._service_subprocess(1)
        self.handle_events()
        self.handle_failed_triggers()


def _encrypted(kwargs: dict[str, Any]) -> str:
    # Before 3.3 the workload has them encrypted, as the database has.
    old = RELEASE < (3, 3)
    return str(Trigger.encrypt_kwargs(kwargs)) if old else json.dumps(kwargs)


def _task_instance(task_id: str) -> Any:
    return known_fields(
        TaskInstanceDTO,
        id=uuid.uuid4(),
        dag_version_id=uuid.uuid4(),
        task_id=task_id,
        dag_id="d",
        run_id="r",
        try_number=1,
        map_index=-1,
        pool_slots=1,
        queue="default",
        priority_weight=1,
    )


def main(spec_path: str, report_path: str) -> None:
    """Run the triggers of a spec and report their events, until killed."""
    spec = json.loads(Path(spec_path).read_text())
    kind = OldTriggerer if RELEASE < (3, 3) else Triggerer
    job: Any = SimpleNamespace(id=uuid.uuid4()) if RELEASE < (3, 3) else None
    triggerer: Triggerer = kind.start(
        job=job, capacity=1000, logger=structlog.get_logger()
    )
    triggerer.connections.update(spec["connections"])
    triggerer.wanted.update({int(n): tuple(t) for n, t in spec["triggers"].items()})
    triggerer.tasks.update(spec.get("tasks", {}))
    triggerer.refused.update(spec.get("refused", {}))
    drop, stop = Path(spec_path).with_name("drop"), Path(spec_path).with_name("stop")
    stopped: dict[str, Any] = {}
    while not stopped:
        triggerer.run_once()
        if drop.exists():  # as if no task waited for these triggers any more
            for number in json.loads(drop.read_text() or "null") or [*triggerer.wanted]:
                triggerer.wanted.pop(number, None)
        if stop.exists():
            began = time.monotonic()
            # As Airflow's own job does it at its end.
            triggerer.kill(escalation_delay=10, force=True)
            took = time.monotonic() - began
            stopped = {"seconds": took, "exit_code": triggerer._exit_code}
        report = {
            "stopped": stopped,
            "running": len(triggerer.running_triggers),
            "events": triggerer.fired,
            "failures": {n: str(error) for n, error in triggerer.failed.items()},
            "asked": triggerer.asked,
            "xcoms": triggerer.xcoms,
            "fired_at": triggerer.fired_at,
            "firings": triggerer.firings,
            "reads": triggerer.reads,
        }
        # Replace the report atomically, so that a test never reads half of it.
        Path(f"{report_path}.new").write_text(json.dumps(report))
        Path(f"{report_path}.new").rename(report_path)


if __name__ == "__main__":
    main(*sys.argv[1:])
