# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Airflow on PostgreSQL, the sandbox, and jobs in flight between them."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from demo.airflow import Airflow
from demo.client import FINISHED, AirflowClient
from runqy_provider.sandbox.loopback import free_port
from runqy_provider.sandbox.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import ExitStack

    from faults.places import Places

DAG = "faults"

#: Worker slots: fewer than jobs.
SLOTS = 8

#: Airflow notices its dead sooner than by default, so that the faults take less time.
SETTINGS = {
    "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "10",
    "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "2",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "10",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "2",
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "10",
    "AIRFLOW__RUNQY__WATCH_SECONDS": "5",
    "AIRFLOW__RUNQY__VANISHED_GRACE_SECONDS": "5",
}

#: A receiver whose clock is ten minutes ahead.
SKEWED = (
    "import time, sys; real = time.time; time.time = lambda: real() + 600;"
    "from runqy_provider.receiver.__main__ import main; sys.exit(main(sys.argv[1:]))"
)
COMMAND = (sys.executable, "-c", SKEWED)


@dataclass(frozen=True)
class Run:
    """Jobs in flight."""

    run_id: str
    jobs: int


class World:
    """All of it, started and stopped together.

    Args:
        home: Where everything is kept.
        stack: Ends what is started here.
        database: SQLAlchemy URL for Airflow.
        places: Where results can go.
        say: Is told what happens.
    """

    def __init__(
        self,
        home: Path,
        stack: ExitStack,
        database: str,
        places: Places,
        say: Callable[[str], None],
    ) -> None:
        here = Path(__file__).resolve().parent
        self.places = places
        self._folder = home / "jobs"
        self._folder.mkdir(parents=True)
        self.sandbox = stack.enter_context(
            Sandbox(
                {
                    "queues": {
                        "job": {"task_code": str(here / "task_code" / "job")},
                        "stored": {
                            "task_code": str(here / "task_code" / "job"),
                            "deployment": {"redis_storage": True},
                        },
                    }
                },
                retry_unit=0.5,
                lease_seconds=5,
                concurrency=8,
                processes=4,
                redis_appendonly=True,
                environment={"FAULTS_FOLDER": str(self._folder), **places.environment},
                directory=home / "sandbox",
            )
        )
        port, skewed = free_port(), free_port()
        secret = secrets.token_hex(16)
        own = self.sandbox.connections(f"http://127.0.0.1:{port}/runqy", secret)
        off = json.loads(json.dumps(own["runqy_default"]))
        off["extra"]["callback_url"] = f"http://127.0.0.1:{skewed}"
        self.airflow = stack.enter_context(
            Airflow(
                home / "airflow",
                here / "dags",
                {**own, "runqy_skewed": off, **places.connections},
                database=database,
                parallelism=SLOTS,
                port=port,
                environment=SETTINGS,
                say=say,
            )
        )
        receiver = subprocess.Popen(
            [*COMMAND, "--conn-id", "runqy_skewed", "--port", str(skewed)],
            env={
                **os.environ,
                "RUNQY_INBOX_REDIS_URL": self.sandbox.redis_url,
                "RUNQY_CALLBACK_SECRET": secret,
            },
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        stack.callback(receiver.wait, 10)
        stack.callback(receiver.terminate)
        self.client = AirflowClient(self.airflow.url)
        self.client.wait_for_dags({DAG})

    # -- jobs ------------------------------------------------------------------------

    def start(
        self, jobs: int, sink: str, mode: str = "", conn_id: str = "runqy_default"
    ) -> Run:
        """Start a run of the DAG; the sink by its short name."""
        conf = {
            "jobs": jobs,
            "sink": self.places.sinks[sink],
            "queue": "stored" if sink == "redis_storage" else "job",
            "mode": mode,
            "conn_id": conn_id,
        }
        return Run(self.client.trigger(DAG, conf), jobs)

    def go(self, run: Run) -> None:
        """Let the jobs of a run go on."""
        place = self._folder / run.run_id
        place.mkdir(exist_ok=True)
        (place / "go").touch()

    def asked_twice(self, run: Run, deliveries: int = 1) -> int:
        """Count the tasks that more deliveries were asked for than these."""
        found: dict[int, set[str]] = defaultdict(set)
        path = self._folder / run.run_id / "runs"
        for line in path.read_text().splitlines() if path.exists() else ():
            index, delivery_id = line.split()
            found[int(index)].add(delivery_id)
        return sum(len(ids) > deliveries for ids in found.values())

    # -- waiting ---------------------------------------------------------------------

    def tasks(self, run: Run) -> list[dict[str, Any]]:
        """Return the task instances of the jobs; none while Airflow does not answer."""
        try:
            found = self.client.task_instances(DAG, run.run_id)
        except (httpx.HTTPError, KeyError, ValueError):
            return []
        return [ti for ti in found if ti["task_id"] == "job" and ti["map_index"] >= 0]

    def wait_deferred(
        self, run: Run, limit: float = 300.0, also: tuple[str, ...] = ()
    ) -> None:
        """Wait until all jobs are in flight.

        Args:
            run: The run.
            limit: Seconds to wait at most.
            also: Other states that will do.

        Raises:
            TimeoutError: They are not.
        """
        for states in self._states(run, limit):
            if len(states) == run.jobs and set(states) <= {"deferred", *also}:
                return
        raise TimeoutError(f"not all in flight after {limit:.0f} s: {states}")

    def wait_finished(self, run: Run, limit: float) -> bool:
        """Wait until all tasks have ended; False where they have not by then."""
        return any(
            len(states) == run.jobs and set(states) <= {*FINISHED, "skipped"}
            for states in self._states(run, limit)
        )

    def _states(self, run: Run, limit: float) -> Iterator[list[str]]:
        end = time.monotonic() + limit
        while time.monotonic() < end:
            yield [str(ti["state"]) for ti in self.tasks(run)]
            time.sleep(0.5)

    # -- faults ----------------------------------------------------------------------

    def kill(self, component: str) -> None:
        """End one of Airflow's processes, and what it started, with SIGKILL."""
        process = self.airflow.processes.pop(component)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def send(self, component: str, number: int) -> None:
        """Send a signal to one of Airflow's processes and what it started."""
        os.killpg(self.airflow.processes[component].pid, number)
