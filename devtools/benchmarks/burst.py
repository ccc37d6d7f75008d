# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Runs of many mapped tasks on a real Airflow with PostgreSQL, and their figures."""

from __future__ import annotations

import json
import re
import secrets
import statistics
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from devtools.airflow import Airflow
from devtools.benchmarks.process_cost import tree_memory, tree_processor_seconds
from devtools.client import FINISHED, AirflowClient
from devtools.servers.postgres import running_postgres
from runqy_sandbox.process.net import free_port
from runqy_sandbox.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from devtools.benchmarks.table import Cell

HERE = Path(__file__).resolve().parent

#: Task processes of the sandbox's worker: as many jobs run at once.
PROCESSES = 60

#: Seconds without any change of a task's state after which a run counts as failed.
STUCK_AFTER = 120.0

_ENDED = re.compile(
    r"Workload finished .*?duration=([\d.]+).*?final_state=(\w+)",
)


@dataclass(frozen=True)
class Burst:
    """The outcome of one run.

    Attributes:
        tasks: How many.
        failed: How many did not succeed.
        lags: Seconds from each job's end to that of its task.
        starts: How often a worker slot was taken.
        slot_seconds: For how long, in total.
        wall: Seconds from the first task's start to the last one's end.
        cpu: Processor time of scheduler and workers, in seconds.
    """

    tasks: int
    failed: int
    lags: Sequence[float] = field(repr=False)
    starts: int
    slot_seconds: float
    wall: float
    cpu: float

    @property
    def lag(self) -> tuple[float, float, float]:
        """Median, 90th percentile and maximum of the lags."""
        if len(self.lags) < 2:
            return (float("nan"),) * 3
        ranked = statistics.quantiles(self.lags, n=10)
        return statistics.median(self.lags), ranked[8], max(self.lags)

    @property
    def cells(self) -> tuple[Cell, ...]:
        """The figures, in the order of ``HEADS``."""
        tasks = max(1, self.tasks)
        return (
            *(self.tasks, *self.lag, self.failed, self.starts, self.slot_seconds),
            *(self.slot_seconds / tasks, self.cpu / tasks, self.wall),
        )


#: Heads of ``Burst.cells``.
HEADS = (
    *("tasks", "median s", "p90 s", "max s", "failed", "starts"),
    *("slot-seconds", "slot-seconds per task", "CPU s per task", "wall s"),
)


@dataclass
class Bench:
    """An Airflow and a sandbox, ready for runs."""

    airflow: Airflow
    sandbox: Sandbox
    client: AirflowClient

    def run(self, dag_id: str, seconds: Sequence[float]) -> Burst:
        """Run one DAG with jobs of these lengths, and wait for its end."""
        log = self.airflow.log_of("scheduler")
        mark, used = log.stat().st_size, self._cpu()
        run_id = self.client.trigger(dag_id, {"seconds": list(seconds)})
        tasks = self._wait(dag_id, run_id)
        ends = _ENDED.findall(log.read_bytes()[mark:].decode(errors="replace"))
        done = [ti for ti in tasks if ti["state"] == "success"]
        times = [_seconds(ti["end_date"]) for ti in tasks if ti["end_date"]]
        starts = [_seconds(ti["start_date"]) for ti in tasks if ti["start_date"]]
        return Burst(
            tasks=len(tasks),
            failed=len(seconds) - len(done),
            lags=[_seconds(ti["end_date"]) - self._finished_at(ti) for ti in done],
            starts=len(ends),
            slot_seconds=sum(float(duration) for duration, _ in ends),
            wall=max(times, default=0.0) - min(starts, default=0.0),
            cpu=self._cpu() - used,
        )

    def memory(self) -> dict[str, float]:
        """Return the MiB of each component of Airflow, with all its processes."""
        processes = self.airflow.processes
        return {name: tree_memory(each.pid) for name, each in processes.items()}

    def _cpu(self) -> float:
        # LocalExecutor's workers are children of the scheduler.
        return tree_processor_seconds(self.airflow.processes["scheduler"].pid)

    def _wait(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        job_states: list[Any] = []
        changed = time.monotonic()
        while True:
            ended = self.client.state(dag_id, run_id) in FINISHED
            found = self.client.task_instances(dag_id, run_id)
            tasks = [ti for ti in found if ti["task_id"] == "wait"]
            now = [(ti["map_index"], ti["state"]) for ti in tasks]
            if now != job_states:
                job_states, changed = now, time.monotonic()
            if ended or time.monotonic() - changed > STUCK_AFTER:
                return tasks
            time.sleep(2)

    def _finished_at(self, ti: dict[str, Any]) -> float:
        """Return when a task's job was done, by its own clock, which is ours."""
        if ti["dag_id"] == "peer":
            return self._read_peer(ti)
        value = self.client.xcom(ti)
        # What a trigger gives to Airflow as an XCom is stored as JSON text.
        return float((json.loads(value) if isinstance(value, str) else value)["at"])

    def _read_peer(self, ti: dict[str, Any]) -> float:
        import boto3  # noqa: PLC0415 - for the peer only

        aws = self.sandbox.connections()["aws_default"]
        s3 = boto3.client(
            "s3",
            endpoint_url=aws["extra"]["endpoint_url"],
            region_name=aws["extra"]["region_name"],
            aws_access_key_id=aws["login"],
            aws_secret_access_key=aws["password"],
        )
        key = f"peer/{ti['dag_run_id']}/{ti['map_index']}"
        body = s3.get_object(Bucket="results", Key=key)["Body"].read()
        return float(json.loads(body)["at"])


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


@contextmanager
def open_bench(
    dag_ids: set[str],
    *,
    slots: int,
    processes: int = PROCESSES,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Bench]:
    """Start Airflow on PostgreSQL, with the benchmarks' DAGs, and the sandbox.

    Args:
        dag_ids: The DAGs to wait for.
        slots: Worker slots.
        processes: Task processes.
        environment: More settings for Airflow.
    """
    code = HERE / "task_code"
    queues = {
        "queues": {
            name: {
                "task_code": str(code / name),
                "deployment": {"startup_timeout_secs": 300},
            }
            for name in ("work", "put", "tell")
        }
    }
    with (
        tempfile.TemporaryDirectory() as folder,
        running_postgres() as postgres,
        Sandbox(queues, processes=processes, concurrency=2 * processes) as sandbox,
    ):
        port = free_port()
        airflow = Airflow(
            Path(folder) / "home",
            HERE / "dags",
            sandbox.connections(
                f"http://127.0.0.1:{port}/runqy", secrets.token_hex(16)
            ),
            database=postgres.airflow_url,
            parallelism=slots,
            port=port,
            environment=environment or {},
        )
        with airflow:
            client = AirflowClient(airflow.url)
            client.wait_for_dags(dag_ids)
            yield Bench(airflow, sandbox, client)
