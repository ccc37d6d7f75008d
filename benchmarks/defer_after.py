# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""What mapped tasks with short jobs cost, by how long they wait before they defer.

Runs a real Airflow and the sandbox: ``python -m benchmarks.defer_after [TASKS]``. The
peer is a task that does not defer at all.
"""

from __future__ import annotations

import re
import secrets
import sys
import tempfile
import time
from pathlib import Path

from demo.airflow import Airflow
from demo.client import FINISHED, AirflowClient
from runqy_provider.sandbox.loopback import free_port
from runqy_provider.sandbox.sandbox import Sandbox

HERE = Path(__file__).resolve().parent

#: How long a job works, in seconds.
WORK = 0.5

#: How long to wait before deferring, in seconds; None: hold the slot till the end.
CHOICES: tuple[float | None, ...] = (0, 1, 2, None)

#: Seconds that one choice may take.
LIMIT = 900.0

DAG_FILE = """
from datetime import timedelta
from airflow.sdk import DAG
from runqy_provider.operators.runqy import RunqyOperator

for name, seconds in {choices!r}.items():
    with DAG(name, schedule=None, max_active_tasks=64):
        RunqyOperator.partial(
            task_id="work",
            runqy_queue="work",
            deferrable=seconds is not None,
            defer_after=timedelta(seconds=seconds or 0),
        ).expand(payload=[dict(n=n, seconds={work}) for n in range({tasks})])
"""


def main(tasks: int) -> None:
    """Run all choices, one after another, and print the table."""
    queues = {"queues": {"work": {"task_code": str(HERE / "task_code" / "work")}}}
    names = {f"defer_after_{choice}": choice for choice in CHOICES}
    with (
        tempfile.TemporaryDirectory() as folder,
        Sandbox(queues, processes=4, concurrency=16) as sandbox,
    ):
        dags = Path(folder) / "dags"
        dags.mkdir()
        text = DAG_FILE.format(choices=names, work=WORK, tasks=tasks)
        (dags / "defer_after.py").write_text(text)
        port = free_port()
        connections = sandbox.connections(
            f"http://127.0.0.1:{port}/runqy", secrets.token_hex(16)
        )
        airflow = Airflow(Path(folder) / "home", dags, connections, port=port)
        with airflow:
            client = AirflowClient(airflow.url)
            client.wait_for_dags(set(names))
            print(f"\n{tasks} mapped tasks, jobs of {WORK} s, 4 slots, SQLite\n")
            print(
                f"{'defer_after':>12} {'wall s':>8} {'failed':>7} {'deferrals':>10} "
                f"{'starts':>7} {'slot-seconds':>13}"
            )
            for name, choice in names.items():
                line = measure(airflow, client, name)
                print(
                    f"{'(no defer)' if choice is None else choice:>12} {line}",
                    flush=True,
                )


def measure(airflow: Airflow, client: AirflowClient, dag_id: str) -> str:
    """Run one DAG and return its columns."""
    log = airflow.log_of("scheduler")
    mark = log.stat().st_size
    started = time.monotonic()
    run_id = client.trigger(dag_id)
    while client.state(dag_id, run_id) not in FINISHED:
        if time.monotonic() - started > LIMIT:
            break
        time.sleep(1)
    wall = time.monotonic() - started
    states = [ti["state"] for ti in client.task_instances(dag_id, run_id)]
    with log.open() as lines:
        lines.seek(mark)
        ends = re.findall(
            r"Workload finished .*?duration=([\d.]+).*?final_state=(\w+)", lines.read()
        )
    deferrals = sum(state == "deferred" for _, state in ends)
    seconds = sum(float(duration) for duration, _ in ends)
    failed = len(states) - states.count("success")
    return f"{wall:8.0f} {failed:7} {deferrals:10} {len(ends):7} {seconds:13.0f}"


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
