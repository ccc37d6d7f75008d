"""Airflow's real triggerer process with no database: ``triggerer.py SPEC REPORT``.

A process of its own, as it forks: pytest's has too much in it to be forked.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import attrs
import httpx
import structlog
from airflow.executors import workloads
from airflow.jobs.triggerer_job_runner import TriggerRunnerSupervisor
from airflow.sdk.api.client import Client


@attrs.define(kw_only=True)
class Triggerer(TriggerRunnerSupervisor):
    """Runs the triggers it is given; remembers what they said and asked for."""

    wanted: dict[int, tuple[str, dict[str, Any]]] = attrs.field(factory=dict)
    connections: dict[str, dict[str, Any]] = attrs.field(factory=dict)
    fired: dict[int, Any] = attrs.field(factory=dict)
    failed: dict[int, Any] = attrs.field(factory=dict)
    asked: list[str] = attrs.field(factory=list)

    def make_client(self) -> Client:
        return Client(
            base_url=None,
            dry_run=True,
            token="",
            transport=httpx.MockTransport(self._answer),
        )

    def _answer(self, request: httpx.Request) -> httpx.Response:
        conn_id = request.url.path.rsplit("/", 1)[1]
        self.asked.append(conn_id)
        known = self.connections.get(conn_id)
        if known is None:
            detail = {"reason": "not_found", "message": conn_id}
            return httpx.Response(404, json={"detail": detail})
        fields = dict.fromkeys(("host", "login", "password", "schema", "port"))
        extra = json.dumps(known.get("extra", {}))
        return httpx.Response(
            200, json={**fields, **known, "conn_id": conn_id, "extra": extra}
        )

    def load_triggers(self) -> None:
        self.update_triggers(set(self.wanted))

    def build_trigger_workloads(self, ids: Any) -> list[Any]:
        return [
            workloads.RunTrigger(
                id=number,
                classpath=self.wanted[number][0],
                encrypted_kwargs=json.dumps(self.wanted[number][1]),
            )
            for number in ids
        ]

    def on_trigger_event(self, trigger_id: int, event: Any) -> None:
        self.fired[trigger_id] = event.payload
        self.wanted.pop(trigger_id, None)

    def on_trigger_failure(self, trigger_id: int, exc: Any) -> None:
        self.failed[trigger_id] = exc
        self.wanted.pop(trigger_id, None)

    def clean_unused(self) -> None: ...

    def heartbeat(self) -> None: ...

    def metric_tags(self) -> dict[str, str]:
        return {"hostname": "test"}


def main(spec_path: str, report_path: str) -> None:
    """Run the triggers of a spec and report what comes of them, till killed."""
    spec = json.loads(Path(spec_path).read_text())
    triggerer: Triggerer = Triggerer.start(
        job=None, capacity=1000, logger=structlog.get_logger()
    )
    triggerer.connections.update(spec["connections"])
    triggerer.wanted.update({int(n): tuple(t) for n, t in spec["triggers"].items()})
    while True:
        triggerer.run_once()
        report = {
            "events": triggerer.fired,
            "failures": {n: str(error) for n, error in triggerer.failed.items()},
            "asked": triggerer.asked,
        }
        # In one stroke, so that no half a report is ever read.
        Path(f"{report_path}.new").write_text(json.dumps(report))
        Path(f"{report_path}.new").rename(report_path)


if __name__ == "__main__":
    main(*sys.argv[1:])
