# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Airflow on PostgreSQL, the sandbox, and jobs in flight between them."""

from __future__ import annotations

import base64
import json
import os
import secrets
import signal
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from devtools.airflow import Airflow
from devtools.client import FINISHED, AirflowClient
from devtools.faults.processes import descendants, parent, title
from devtools.faults.redis_pair import running_redis_pair
from devtools.receiver import running_receiver
from devtools.servers.redis_cluster import running_redis_cluster
from devtools.servers.redis_sentinel import running_sentinels
from runqy_sandbox.process.net import free_port
from runqy_sandbox.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import ExitStack

    from devtools.faults.backends import Backends

#: The DAGs: their tasks defer at once and are not retried; wait in their slots, and are
#: retried; defer at once, and are retried.
DAG, IN_SLOTS, RETRIED = "faults", "faults_in_slots", "faults_retried"

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

#: A receiver whose clock is off, by seconds that are its first argument.
SKEWED = (
    "import time, sys; real, off = time.time, int(sys.argv.pop(1));"
    "time.time = lambda: real() + off;"
    "from runqy_provider.receiver.__main__ import main; sys.exit(main(sys.argv[1:]))"
)

#: How far the receivers' clocks are off, by the runqy connection that leads to each.
CLOCKS = {"runqy_ahead": 600, "runqy_behind": -600}

#: runqy connections whose inbox fails over, and the Redis connection of each.
PAIR, CLUSTER, SENTINELS = "runqy_pair", "runqy_cluster", "runqy_sentinels"
INBOXES = {PAIR: "inbox", CLUSTER: "inbox_cluster", SENTINELS: "inbox_sentinels"}

#: Jobs that run at once: as many as two cores bear.
AT_ONCE = 10


@dataclass(frozen=True)
class Run:
    """Jobs in flight."""

    run_id: str
    jobs: int
    dag_id: str = DAG
    enqueued_before: int = 0


class Environment:
    """All of it, started and stopped together.

    Args:
        home: Where everything is kept.
        stack: Ends what is started here.
        database: SQLAlchemy URL for Airflow.
        backends: The sinks that results can go to.
        say: Prints what happens.
    """

    def __init__(
        self,
        home: Path,
        stack: ExitStack,
        database: str,
        backends: Backends,
        say: Callable[[str], None],
    ) -> None:
        here = Path(__file__).resolve().parent
        self.backends = backends
        self._folder = home / "jobs"
        self._folder.mkdir(parents=True)
        signing = "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode()
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
                concurrency=AT_ONCE,
                processes=AT_ONCE,
                redis_appendonly=True,
                environment={
                    "FAULTS_FOLDER": str(self._folder),
                    "RUNQY_DELIVERY_SIGNING_SECRET": signing,
                    **backends.environment,
                },
                directory=home / "sandbox",
            )
        )
        port, secret = free_port(), secrets.token_hex(16)
        own = self.sandbox.connections(f"http://127.0.0.1:{port}/runqy", secret)
        self.inbox = stack.enter_context(running_redis_pair(home / "inbox"))
        own["inbox"] = {**own["redis_default"], "port": self.inbox.port}
        self.cluster = stack.enter_context(running_redis_cluster(home / "cluster"))
        own["inbox_cluster"] = self.cluster.airflow_connection
        self.sentinels = stack.enter_context(running_sentinels(home / "sentinels"))
        own["inbox_sentinels"] = self.sentinels.airflow_connection
        for conn_id, inbox in INBOXES.items():
            own[conn_id] = json.loads(json.dumps(own["runqy_default"]))
            own[conn_id]["extra"]["redis_conn_id"] = inbox
        off = {conn_id: free_port() for conn_id in CLOCKS}
        for conn_id, receiver_port in off.items():
            own[conn_id] = json.loads(json.dumps(own["runqy_default"]))
            own[conn_id]["extra"]["callback_url"] = f"http://127.0.0.1:{receiver_port}"
            own[conn_id]["extra"]["signing_secret"] = signing
        self.airflow = stack.enter_context(
            Airflow(
                home / "airflow",
                here / "dags",
                {**own, **backends.connections},
                database=database,
                parallelism=SLOTS,
                port=port,
                environment=SETTINGS,
                say=say,
            )
        )
        for conn_id, receiver_port in off.items():
            self._start_receiver(stack, conn_id, receiver_port, (secret, signing))
        self.client = AirflowClient(self.airflow.url)
        self.client.wait_for_dags({DAG, IN_SLOTS, RETRIED})

    def _start_receiver(
        self, stack: ExitStack, conn_id: str, port: int, own: tuple[str, str]
    ) -> None:
        receiver = running_receiver(
            self.sandbox.redis_url,
            own[0],
            "--conn-id",
            conn_id,
            command=[sys.executable, "-c", SKEWED, str(CLOCKS[conn_id])],
            port=port,
            environment={"RUNQY_SIGNING_SECRET": own[1]},
        )
        stack.enter_context(receiver)

    # -- jobs ------------------------------------------------------------------------

    def start(
        self,
        jobs: int,
        sink: str,
        *,
        mode: str = "",
        conn_id: str = "runqy_default",
        dag_id: str = DAG,
    ) -> Run:
        """Start a run of the DAG; the sink by its short name."""
        conf = {
            "jobs": jobs,
            "sink": self.backends.sinks[sink],
            "queue": "stored" if sink == "redis_storage" else "job",
            "mode": mode,
            "conn_id": conn_id,
        }
        before = self._enqueued()
        return Run(self.client.trigger(dag_id, conf), jobs, dag_id, before)

    def go(self, run: Run) -> None:
        """Let the jobs of a run go on."""
        backend = self._folder / run.run_id
        backend.mkdir(exist_ok=True)
        (backend / "go").touch()

    def enqueued(self, run: Run) -> int:
        """Count the jobs that runqy was given since a run was started."""
        return self._enqueued() - run.enqueued_before

    def _enqueued(self) -> int:
        # The server's own look-up from a job's id to its queue outlives the job. Where
        # its Redis is unavailable just now, nothing was started yet.
        try:
            with Redis.from_url(self.sandbox.redis_url) as redis:
                return sum(1 for _ in redis.scan_iter("asynq:t:*", count=1000))
        except RedisConnectionError:
            return 0

    def pending(self) -> int:
        """Count the jobs that no worker has begun."""
        with Redis.from_url(self.sandbox.redis_url) as redis:
            queues = [key.decode() for key in redis.scan_iter("asynq:{*}:pending")]
            return sum(int(redis.llen(key)) for key in queues)

    # -- waiting ---------------------------------------------------------------------

    def tasks(self, run: Run) -> list[dict[str, Any]]:
        """Return the task instances of the jobs; none while Airflow does not answer."""
        try:
            found = self.client.task_instances(run.dag_id, run.run_id)
        except (requests.RequestException, KeyError, ValueError):
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
        for job_states in self._states(run, limit):
            if len(job_states) == run.jobs and set(job_states) <= {"deferred", *also}:
                return
        raise TimeoutError(f"not all in flight after {limit:.0f} s: {job_states}")

    def wait_triggered(self, run: Run, limit: float = 60.0) -> None:
        """Wait until a triggerer has all of a run's triggers.

        Raises:
            TimeoutError: It has not.
        """
        end = time.monotonic() + limit
        while time.monotonic() < end:
            if all(ti["triggerer_job"] for ti in self.tasks(run)):
                # Airflow says so before it runs them, and not when it does.
                time.sleep(3)
                return
            time.sleep(0.5)
        raise TimeoutError(f"not all triggers were taken after {limit:.0f} s")

    def wait_finished(self, run: Run, limit: float) -> bool:
        """Wait until all tasks have ended; False where they have not by then."""
        return any(
            len(job_states) == run.jobs and set(job_states) <= {*FINISHED, "skipped"}
            for job_states in self._states(run, limit)
        )

    def wait_succeeded(self, run: Run, count: int, limit: float = 120.0) -> None:
        """Wait until so many tasks have succeeded.

        Raises:
            TimeoutError: They have not.
        """
        for job_states in self._states(run, limit):
            if job_states.count("success") >= count:
                return
        raise TimeoutError(f"fewer than {count} tasks succeeded in {limit:.0f} s")

    def wait_dropped(self, limit: float) -> int:
        """Wait until no job waits for a worker; return how many do by then."""
        end = time.monotonic() + limit
        while (kept := self.pending()) and time.monotonic() < end:
            time.sleep(0.5)
        return kept

    def is_there(self, run: Run) -> bool:
        """Ask Airflow whether it knows a run."""
        try:
            self.client.get(f"/dags/{run.dag_id}/dagRuns/{run.run_id}")
        except requests.HTTPError as error:
            if error.response.status_code != requests.codes.not_found:
                raise
            return False
        return True

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

    def kill_tasks(self) -> int:
        """End the processes in which tasks run, with SIGKILL; return how many."""
        killed = 0
        for process in descendants(self.airflow.processes["scheduler"].pid):
            # What supervises a task has forked it, and bears the same title.
            titles = title(process), title(parent(process))
            if all("airflow worker -- " in title for title in titles):
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
                    killed += 1
        return killed

    def send(self, component: str, number: int) -> None:
        """Send a signal to one of Airflow's processes and what it started."""
        os.killpg(self.airflow.processes[component].pid, number)
