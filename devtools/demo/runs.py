# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The runs of the examples, and how far each of their tasks is."""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from devtools.client import FINISHED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from devtools.client import AirflowClient
    from devtools.demo.examples import Expected

#: States in which a task instance stays.
ENDED = (*FINISHED, "upstream_failed", "skipped", "removed")

#: Seconds without any change after which the runs are given up.
STUCK_AFTER = 180.0

#: The same once all runs have ended: the end of a log may come after its task's state.
SETTLED_AFTER = 10.0

#: Seconds between two looks.
INTERVAL = 1.0


@dataclass(frozen=True)
class Row:
    """One task of an example, with all its instances.

    Attributes:
        dag_id: The DAG.
        task_id: The task.
        count: How many instances it must have.
        text: The states until it has ended; then its result, or its error.
        sink: Where its job delivers; empty if it has no job.
        seconds: From enqueueing to the delivery, and to the end of the task; of the
            slowest instance.
        is_right: Whether it has ended as expected; None if it has not ended.
    """

    dag_id: str
    task_id: str
    count: int
    text: str = "not started"
    sink: str = ""
    seconds: tuple[float, float] | None = None
    is_right: bool | None = None


class Runs:
    """Starts runs and looks at them.

    Args:
        client: Airflow, which has no other runs.
        expected: The tasks to look at.
        show: Takes all rows after each look.
    """

    def __init__(
        self,
        client: AirflowClient,
        expected: Sequence[Expected],
        show: Callable[[Sequence[Row]], None],
    ) -> None:
        self._client = client
        self._show = show
        self._started: set[str] = set()
        self._instances: dict[Expected, list[dict[str, Any]]] = {}
        self._are_finished = False
        self._seen: object = None
        self._changed = time.monotonic()
        self._rows = {
            each: Row(each.dag_id, each.task_id, each.count) for each in expected
        }

    @property
    def rows(self) -> list[Row]:
        """All tasks, as they were at the last look."""
        return list(self._rows.values())

    def row(self, wanted: Expected) -> Row:
        """Return the row of a task."""
        return self._rows[wanted]

    def states(self, wanted: Expected) -> list[str | None]:
        """Return the states of a task's instances that exist by now."""
        return [each["state"] for each in self._instances.get(wanted, [])]

    def start(self, dag_ids: Iterable[str]) -> None:
        """Start a run of each of these DAGs that has none, in this order."""
        for dag_id in dag_ids:
            if dag_id not in self._started:
                self._started.add(dag_id)
                self._client.trigger(dag_id)

    def watch(self, until: Callable[[], bool] = lambda: False) -> None:
        """Look until this is true, or all tasks are right, or nothing changes."""
        self._changed = time.monotonic()
        while not self._is_over():
            self._look()
            self._show(self.rows)
            if until():
                return
            time.sleep(INTERVAL)

    def _is_over(self) -> bool:
        if all(row.is_right for row in self.rows):
            return True
        limit = SETTLED_AFTER if self._are_finished else STUCK_AFTER
        return time.monotonic() - self._changed > limit

    def _look(self) -> None:
        runs = self._client.get("/dags/~/dagRuns", limit=100)["dag_runs"]
        # After the runs: all tasks of a finished one are in their last state.
        instances = self._client.task_instances("~", "~")
        finished = {run["dag_id"] for run in runs if run["state"] in FINISHED}
        for wanted, row in self._rows.items():
            found = self._instances[wanted] = sorted(
                (each for each in instances if _is_of(each, wanted)),
                key=lambda each: int(each["map_index"]),
            )
            # What is wrong is looked at again: the end of its log may be on its way.
            if not row.is_right:
                self._rows[wanted] = (
                    self._ended(wanted, found)
                    if wanted.dag_id in finished or _have_ended(found, wanted)
                    else Row(row.dag_id, row.task_id, row.count, _states(found))
                )
        seen = sorted((each["id"], str(each["state"])) for each in instances), finished
        if seen != self._seen:
            self._changed = time.monotonic()
        self._seen = seen
        self._are_finished = finished == {wanted.dag_id for wanted in self._rows}

    def _ended(self, wanted: Expected, found: list[dict[str, Any]]) -> Row:
        outcomes = [self._outcome(each) for each in found]
        jobs = [self._client.xcom(each, "runqy_job") or {} for each in found]
        seconds = [
            self._seconds(job.get("enqueued_at"), each)
            for job, each in zip(jobs, found, strict=True)
        ]
        is_right = len(found) == wanted.count and all(
            each["state"] == wanted.state and wanted.holds(outcome)
            for each, outcome in zip(found, outcomes, strict=True)
        )
        return Row(
            wanted.dag_id,
            wanted.task_id,
            wanted.count,
            _text(found, outcomes),
            str(jobs[0].get("sink", "")) if jobs else "",
            max(filter(None, seconds), key=lambda each: each[1], default=None),
            is_right,
        )

    def _outcome(self, instance: dict[str, Any]) -> Any:
        if instance["state"] == "success":
            return self._client.xcom(instance)
        return self._client.log(instance) if instance["state"] == "failed" else ""

    def _seconds(
        self, enqueued: float | None, instance: dict[str, Any]
    ) -> tuple[float, float] | None:
        receipt = self._client.xcom(instance, "runqy_delivery") or {}
        delivered = receipt.get("delivered_at")
        if enqueued is None or delivered is None or not instance["end_date"]:
            return None
        end = datetime.fromisoformat(instance["end_date"]).timestamp()
        # S3 reports times in whole seconds, so a quick job may seem to end early.
        return max(0.0, delivered - enqueued), end - enqueued


def _is_of(instance: dict[str, Any], wanted: Expected) -> bool:
    return (instance["dag_id"], instance["task_id"]) == (wanted.dag_id, wanted.task_id)


def _have_ended(found: list[dict[str, Any]], wanted: Expected) -> bool:
    return len(found) == wanted.count and all(each["state"] in ENDED for each in found)


def _states(found: list[dict[str, Any]]) -> str:
    """Return how many instances are in which state; only the state of a single one."""
    states = Counter(each["state"] or "not started" for each in found)
    if len(found) == 1:
        return str(*states)
    return ", ".join(f"{count} {state}" for state, count in states.items())


def _text(found: list[dict[str, Any]], outcomes: list[Any]) -> str:
    if not found:
        return "missing"
    if found[0]["state"] == "success":
        return json.dumps(outcomes[0])
    return _error_in(outcomes[0]) or str(found[0]["state"])


def _error_in(log: str) -> str:
    """Return the line of a log that says why the job failed."""
    marker = "The job failed"
    line = next((line for line in log.splitlines() if marker in line), "")
    start = line.find("): ", line.find(marker)) + 3
    return line[start:].split("\\n")[0][:120] if start > 2 else line[:120]
