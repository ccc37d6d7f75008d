# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""What the demo saw, row by row, and whether it is as expected."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from devtools.client import AirflowClient


@dataclass(frozen=True)
class Expected:
    """The expected outcome of a task of an example.

    Attributes:
        dag_id: The DAG.
        task_id: The task.
        count: Task instances; more than one if it is mapped.
        state: The state they must end in.
        holds: Says whether a result, or the log of a failed task, is right.
    """

    dag_id: str
    task_id: str
    holds: Callable[[Any], bool]
    count: int = 1
    state: str = "success"


@dataclass(frozen=True)
class Row:
    """One task instance as it ended."""

    dag_id: str
    task: str
    sink: str
    state: str
    times: str
    result: str
    is_right: bool


def rows_of(
    client: AirflowClient, run_ids: dict[str, str], expected: Iterable[Expected]
) -> list[Row]:
    """Return a row for each task instance that was expected, found or not."""
    rows: list[Row] = []
    for wanted in expected:
        found = [
            ti
            for ti in client.task_instances(wanted.dag_id, run_ids[wanted.dag_id])
            if ti["task_id"] == wanted.task_id
        ]
        rows += [_row(client, ti, wanted) for ti in found]
        rows += [
            Row(wanted.dag_id, wanted.task_id, "", "missing", "", "", is_right=False)
        ] * (wanted.count - len(found))
    return rows


def _row(client: AirflowClient, ti: dict[str, Any], wanted: Expected) -> Row:
    job = client.xcom(ti, "runqy_job") or {}
    receipt = client.xcom(ti, "runqy_delivery") or {}
    if ti["state"] == "success":
        outcome = client.xcom(ti)
        message = json.dumps(outcome)
    else:
        outcome = client.log(ti)
        message = _error_in(outcome)
    index = ti["map_index"]
    return Row(
        dag_id=ti["dag_id"],
        task=ti["task_id"] if index < 0 else f"{ti['task_id']} [{index}]",
        sink=str(job.get("sink", "")),
        state=str(ti["state"]),
        times=_times(job.get("enqueued_at"), receipt.get("delivered_at"), ti),
        result=message,
        is_right=ti["state"] == wanted.state and wanted.holds(outcome),
    )


def _times(enqueued: float | None, delivered: float | None, ti: dict[str, Any]) -> str:
    """Return seconds from enqueueing to delivery, and to the end of the task."""
    if enqueued is None or delivered is None or not ti["end_date"]:
        return ""
    end = datetime.fromisoformat(ti["end_date"]).timestamp()
    # S3 reports times in whole seconds, so a quick job may seem to end early.
    return f"0 → {max(0, delivered - enqueued):.1f} → {end - enqueued:.1f}"


def _error_in(log: str) -> str:
    """Return the line of a log that says why the job failed."""
    marker = "The job failed"
    line = next((line for line in log.splitlines() if marker in line), "")
    start = line.find("): ", line.find(marker)) + 3
    return line[start:].split("\\n")[0][:120] if start > 2 else line[:120]


def print_table(rows: Sequence[Row]) -> None:
    """Print the rows as a table."""
    table = Table(title="runqy for Airflow: the main job, end to end", box=SIMPLE)
    for name in ("DAG", "task", "sink", "state"):
        table.add_column(name, no_wrap=True)
    table.add_column("enqueued → delivered → task done (s)", no_wrap=True)
    table.add_column("result", overflow="fold", max_width=70)
    table.add_column("ok")
    for row in rows:
        result = row.result if len(row.result) <= 140 else row.result[:137] + "..."
        table.add_row(
            row.dag_id,
            row.task,
            row.sink,
            row.state,
            row.times,
            result,
            "yes" if row.is_right else "NO",
        )
    console = Console()
    # A pipe has no width; the table must not be wrapped in it.
    width = console.width if console.is_terminal else 200
    Console(width=max(width, 120)).print(table)
