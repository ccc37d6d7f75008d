"""Airflow on PostgreSQL, the sandbox, and jobs in flight between them."""

from __future__ import annotations

import base64
import copy
import json
import os
import secrets
import shutil
import signal
import sys
import time
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from devtools.airflow import Airflow
from devtools.client import FINISHED, AirflowClient
from devtools.receiver import running_receiver
from devtools.servers.azurite import running_azurite
from devtools.servers.google_storage import running_google_storage
from devtools.servers.postgres import running_postgres
from devtools.servers.rabbitmq import running_rabbitmq
from devtools.servers.redis_cluster import running_redis_cluster
from devtools.servers.redis_sentinel import running_sentinels
from devtools.servers.switch import Switch
from runqy_sandbox.process.child import Child
from runqy_sandbox.process.net import free_port
from runqy_sandbox.process.watchdog import Watchdog
from runqy_sandbox.redis_server import redis_program
from runqy_sandbox.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

HERE = Path(__file__).resolve().parent

#: The sinks that results go to, by short names, and how many jobs are in flight.
SINKS = os.environ.get("RUNQY_FAULTS_SINKS", "webhook,s3").split(",")
JOBS = int(os.environ.get("RUNQY_FAULTS_JOBS", "3"))

#: Seconds within which every task must have ended once the fault is over; the longest
#: way is a helper's five minutes of tries.
LIMIT = 240.0

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
    dag_id: str = DAG
    enqueued_before: int = 0


@dataclass(frozen=True)
class Outcome:
    """What became of a run's tasks, by their number.

    Attributes:
        succeeded: With their own result.
        failed: With the words in their log that are asked for.
        lost: With something else.
        hung: They have not ended.
        enqueued: How many jobs were enqueued for a task, on average.
    """

    succeeded: int = 0
    failed: int = 0
    lost: int = 0
    hung: int = 0
    enqueued: float = 1


#: What all faults but a few must end in.
ALL_SUCCEEDED = Outcome(succeeded=JOBS)


class RedisPair:
    """A Redis and its replica behind one address, which leads to the primary."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        watchdog = stack.enter_context(closing(Watchdog()))
        self._ports = free_port(), free_port()
        for port in self._ports:
            program = redis_program(port, folder / str(port), appendonly=False)
            child = Child(program, folder / f"{port}.log", watchdog)
            child.start()
            stack.callback(child.stop)
        self._switch = stack.enter_context(Switch(self._ports[0]))
        self.port = self._switch.port
        self._follow(*self._ports)

    def fail_over(self) -> None:
        """Make the replica the primary; connections that are open stay as they are.

        Nothing is lost by it: what was written has been copied by then.
        """
        old, new = self._ports
        with Redis(port=old) as redis:
            redis.wait(1, 10_000)
        with Redis(port=new) as redis:
            redis.replicaof("NO", "ONE")
        self._follow(new, old)
        self._switch.leads_to = new
        self._ports = new, old

    @staticmethod
    def _follow(primary: int, replica: int) -> None:
        with Redis(port=replica) as redis:
            redis.replicaof("127.0.0.1", str(primary))
        with Redis(port=primary) as redis:
            # Until the replica has copied this, it has copied all before.
            redis.set("faults:copied", "1")
            if not redis.wait(1, 30_000):
                raise TimeoutError("the replica does not follow its primary")


@dataclass
class Backend:
    """One sink, and what Airflow and task code must know of its server.

    Attributes:
        uri: URI of the sink.
        airflow: More of Airflow's environment.
        task_code: More of the task code's environment.
    """

    uri: str
    airflow: dict[str, str]
    task_code: dict[str, str]


def open_backend(sink: str, stack: ExitStack, folder: Path) -> Backend:
    """Start what a sink needs; ``stack`` ends it."""
    uri = sink
    airflow: dict[str, Any] = {}
    task_code: dict[str, str] = {}
    match sink:
        case "webhook" | "redis_storage":
            pass
        case "s3":
            uri = "s3://results/faults"
        case "file":
            folder.mkdir()
            uri = f"file://{folder}"
        case "sql":
            postgres = stack.enter_context(running_postgres())
            columns = "status text NOT NULL, result text, completed_at timestamptz"
            with postgres.connect() as connection:
                connection.execute(
                    f"CREATE TABLE tasks (id text PRIMARY KEY, {columns})"
                )
            uri = "sql://results/tasks"
            airflow["RESULTS"] = postgres.url
            task_code["RUNQY_DELIVERY_DATABASE_URL"] = postgres.url
        case "amqp":
            rabbitmq = stack.enter_context(running_rabbitmq())
            uri = "amqp://broker/faults"
            airflow["BROKER"] = rabbitmq.url
            task_code["RUNQY_DELIVERY_AMQP_URL"] = rabbitmq.url
        case "gs":
            google = stack.enter_context(running_google_storage())
            google.create_bucket("results")
            uri = "gs://results/faults"
            extra = {"keyfile_dict": json.dumps(google.key)}
            kind = "google_cloud_platform"
            airflow["GOOGLE_CLOUD_DEFAULT"] = {"conn_type": kind, "extra": extra}
        case "abfs":
            azurite = stack.enter_context(running_azurite())
            azurite.create_container("results")
            uri = "abfs://results/faults"
            extra = {"connection_string": azurite.connection_string}
            airflow["WASB_DEFAULT"] = {"conn_type": "wasb", "extra": extra}
        case _:
            raise ValueError(f"RUNQY_FAULTS_SINKS names an unknown sink: {sink!r}")
    connections = {
        f"AIRFLOW_CONN_{name}": given if isinstance(given, str) else json.dumps(given)
        for name, given in airflow.items()
    }
    return Backend(uri, connections, task_code)


def _dags(folder: Path) -> Path:
    """Put the DAGs into a folder: those of the faults, and the one of a channel."""
    folder.mkdir()
    for name in ("faults_dags/faults.py", "version_dags/taking.py"):
        shutil.copy(HERE / name, folder)
    return folder


class FaultsWorld:
    """All of it, started together.

    Attributes:
        connections: Airflow's connections, by their ids.

    Args:
        home: An empty folder for its files.
        stack: Ends what is started here.
        has_all: Whether to start what only ``make faults`` needs: more kinds of Redis
            for the inbox, and receivers whose clocks are off.
    """

    def __init__(self, home: Path, stack: ExitStack, *, has_all: bool) -> None:
        database = stack.enter_context(running_postgres()).airflow_url
        self._backends = {
            sink: open_backend(sink, stack, home / f"results-{sink}") for sink in SINKS
        }
        self._folder = home / "jobs"
        self._folder.mkdir()
        signing = "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode()
        code = {"task_code": str(HERE / "faults_code")}
        environment = {
            "FAULTS_FOLDER": str(self._folder),
            "RUNQY_DELIVERY_SIGNING_SECRET": signing,
        }
        for backend in self._backends.values():
            environment |= backend.task_code
        stored = {**code, "deployment": {"redis_storage": True}}
        self.sandbox = stack.enter_context(
            Sandbox(
                {"queues": {"job": code, "stored": stored}},
                retry_unit=0.5,
                lease_seconds=5,
                concurrency=AT_ONCE,
                processes=AT_ONCE,
                redis_appendonly=True,
                environment=environment,
                directory=home / "sandbox",
            )
        )
        self.inbox = RedisPair(home, stack)
        port, secret = free_port(), secrets.token_hex(16)
        own = self.sandbox.connections(f"http://127.0.0.1:{port}/runqy", secret)
        own["inbox"] = {**own["redis_default"], "port": self.inbox.port}
        if has_all:
            self.cluster = stack.enter_context(running_redis_cluster(home / "cluster"))
            self.sentinels = stack.enter_context(running_sentinels(home / "sentinels"))
            own["inbox_cluster"] = self.cluster.airflow_connection
            own["inbox_sentinels"] = self.sentinels.airflow_connection
        own["good"] = own["runqy_default"]
        for conn_id, inbox in INBOXES.items():
            own[conn_id] = copy.deepcopy(own["runqy_default"])
            own[conn_id]["extra"]["redis_conn_id"] = inbox
        for conn_id, seconds in CLOCKS.items() if has_all else ():
            receiver = stack.enter_context(
                running_receiver(
                    self.sandbox.redis_url,
                    secret,
                    "--conn-id",
                    conn_id,
                    command=[sys.executable, "-c", SKEWED, str(seconds)],
                    environment={"RUNQY_SIGNING_SECRET": signing},
                )
            )
            own[conn_id] = copy.deepcopy(own["runqy_default"])
            own[conn_id]["extra"]["callback_url"] = receiver.url
            own[conn_id]["extra"]["signing_secret"] = signing
        settings = dict(SETTINGS)
        for backend in self._backends.values():
            settings |= backend.airflow
        self.connections = own
        self.airflow = stack.enter_context(
            Airflow(
                home / "airflow",
                _dags(home / "dags"),
                own,
                database=database,
                parallelism=SLOTS,
                port=port,
                environment=settings,
            )
        )
        self.client = AirflowClient(self.airflow.url)
        self.client.wait_for_dags({DAG, IN_SLOTS, RETRIED})

    # -- jobs ------------------------------------------------------------------------

    def start(
        self,
        sink: str,
        *,
        mode: str = "",
        conn_id: str = "runqy_default",
        dag_id: str = DAG,
    ) -> Run:
        """Start a run of the DAG; the sink by its short name."""
        conf = {
            "jobs": JOBS,
            "sink": self._backends[sink].uri,
            "queue": "stored" if sink == "redis_storage" else "job",
            "mode": mode,
            "conn_id": conn_id,
        }
        before = self._enqueued()
        return Run(self.client.trigger(dag_id, conf), dag_id, before)

    def in_flight(self, sink: str, **how: str) -> Run:
        """Start a run, and wait until all of its jobs are in flight."""
        run = self.start(sink, **how)
        self.wait_deferred(run)
        return run

    def go(self, run: Run) -> None:
        """Let the jobs of a run go on."""
        backend = self._folder / run.run_id
        backend.mkdir(exist_ok=True)
        (backend / "go").touch()

    def enqueued(self, run: Run) -> int:
        """Count the jobs that runqy was given since a run was started."""
        return self._enqueued() - run.enqueued_before

    def _enqueued(self) -> int:
        # The server's own look-up from a job's id to its queue outlives the job. If its
        # Redis is unavailable at the moment, nothing was started yet.
        try:
            with Redis.from_url(self.sandbox.redis_url) as redis:
                return sum(1 for _ in redis.scan_iter("asynq:t:*", count=1000))
        except RedisConnectionError:
            return 0

    # -- waiting ---------------------------------------------------------------------

    def tasks(self, run: Run) -> list[dict[str, Any]]:
        """Return the task instances of the jobs; none while Airflow does not answer."""
        try:
            found = self.client.task_instances(run.dag_id, run.run_id)
        except (requests.RequestException, KeyError, ValueError):
            return []
        return [ti for ti in found if ti["task_id"] == "job" and ti["map_index"] >= 0]

    def _wait(
        self, what: str, condition: Callable[[], bool], limit: float = 120.0
    ) -> None:
        end = time.monotonic() + limit
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError(f"after {limit:.0f} s not yet: {what}")
            time.sleep(0.5)

    def wait_deferred(self, run: Run, *also: str) -> None:
        """Wait until all jobs are in flight, or their tasks in one of other states."""
        self._wait(
            "all jobs in flight",
            lambda: self._are_all(run, {"deferred", *also}),
            limit=300,
        )

    def wait_triggered(self, run: Run) -> None:
        """Wait until a triggerer has all of a run's triggers."""
        self._wait(
            "all triggers taken",
            lambda: all(ti["triggerer_job"] for ti in self.tasks(run)),
        )
        # Airflow says so before it runs them, and not when it does.
        time.sleep(3)

    def wait_succeeded(self, run: Run) -> None:
        """Wait until a task has succeeded."""
        self._wait("a task that succeeded", lambda: "success" in self._states(run))

    def wait_finished(self, run: Run, limit: float = LIMIT) -> None:
        """Wait until all tasks have ended."""
        self._wait("the end of all tasks", lambda: self._are_all(run, FINISHED), limit)

    def wait_deleted(self) -> None:
        """Wait until no job waits for a worker."""

        def pending() -> int:
            with Redis.from_url(self.sandbox.redis_url) as redis:
                queues = [key.decode() for key in redis.scan_iter("asynq:{*}:pending")]
                return sum(int(redis.llen(key)) for key in queues)

        self._wait("the deletion of all jobs", lambda: not pending(), limit=60)

    def wait_slots_full(self, run: Run) -> None:
        """Wait until as many tasks as there are slots have enqueued."""
        self._wait("full slots", lambda: self.enqueued(run) >= min(SLOTS, JOBS))

    def _states(self, run: Run) -> list[str]:
        return [str(ti["state"]) for ti in self.tasks(run)]

    def _are_all(self, run: Run, wanted: Collection[str]) -> bool:
        states = self._states(run)
        return len(states) == JOBS and set(states) <= set(wanted)

    def outcome(self, run: Run, says: str = "") -> Outcome:
        """Let the tasks end, and return what became of them.

        Args:
            run: The run.
            says: What the log of a task that failed must say; else it is lost.
        """
        with suppress(TimeoutError):
            self.wait_finished(run)
        found = Outcome(hung=JOBS, enqueued=self.enqueued(run) / JOBS)
        for ti in self.tasks(run):
            if ti["state"] not in FINISHED:
                continue
            found = replace(found, hung=found.hung - 1)
            if ti["state"] == "success":
                # A value that is another one's is lost, whatever the state says.
                is_own = self.client.xcom(ti) == {"index": ti["map_index"]}
                name = "succeeded" if is_own else "lost"
            else:
                name = "failed" if says and says in self.client.log(ti) else "lost"
            found = replace(found, **{name: getattr(found, name) + 1})
        return found

    def is_there(self, run: Run) -> bool:
        """Ask Airflow whether it knows a run."""
        try:
            self.client.get(f"/dags/{run.dag_id}/dagRuns/{run.run_id}")
        except requests.HTTPError as error:
            if error.response.status_code != requests.codes.not_found:
                raise
            return False
        return True

    # -- faults ----------------------------------------------------------------------

    def stall(self, component: str, seconds: float) -> None:
        """Stop one of Airflow's processes and what it started, and let it go on."""
        group = self.airflow.processes[component].pid
        os.killpg(group, signal.SIGSTOP)
        time.sleep(seconds)
        os.killpg(group, signal.SIGCONT)
