"""One Airflow as companies run it: three executors, and a secrets backend."""

from __future__ import annotations

import copy
import json
import re
import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography.fernet import Fernet
from redis import Redis

from devtools.airflow import Airflow
from devtools.client import FINISHED, AirflowClient
from devtools.receiver import running_receiver
from devtools.servers.postgres import running_postgres
from runqy_sandbox.process.net import free_port
from runqy_sandbox.sandbox import Sandbox
from tests.e2e import pod_executor

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import ExitStack

HERE = Path(__file__).resolve().parent
DAGS = HERE / "executors_dags"

#: Seconds within which each step must be done on a busy machine.
LIMIT = 300.0

#: The Celery workers and the triggerers, by the names that they are started with.
WORKERS, TRIGGERERS = ("celery-1", "celery-2"), ("triggerer", "triggerer-2")

#: Processes of the API server that answer requests.
API_WORKERS = 2

#: Tasks that each Celery worker runs at a time.
CONCURRENCY = 4

EXECUTORS = (
    "CeleryExecutor",
    pod_executor.PATH,
    "edge:airflow.providers.edge3.executors.EdgeExecutor",
)

#: What the log says of the job that a task waits for.
_JOB = re.compile(r"(?:Enqueued job|Job) (\S+) (?:in queue|of the previous attempt)")

FERNET_KEY = "AIRFLOW__CORE__FERNET_KEY"

#: Airflow notices its dead sooner than by default, so that the tests take less time.
SETTINGS = {
    "AIRFLOW__API__WORKERS": str(API_WORKERS),
    "AIRFLOW__CELERY__OPERATION_TIMEOUT": "10",
    "AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT": "60",
    "AIRFLOW__EDGE__API_ENABLED": "True",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "2",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "20",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "60",
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": "10",
    "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "2",
    "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "10",
    "AIRFLOW__RUNQY__WATCH_SECONDS": "5",
}


class ExecutorsWorld:
    """The servers, Airflow, its workers, and how to run and kill what is there.

    The connection ``runqy_stored`` is in Airflow's database, encrypted with a key that
    was rotated before Airflow started; the others are in a secrets backend. Deliveries
    for ``runqy_default`` go to a receiver of its own, for ``runqy_stored`` to that of
    Airflow's API servers.

    Args:
        home: An empty folder for its files.
        stack: Ends what is started here.
    """

    def __init__(self, home: Path, stack: ExitStack) -> None:
        self.home = home
        self._jobs, self._pods = home / "jobs", home / "pods"
        self.xcoms = home / "xcoms"
        for folder in (self._jobs, self._pods, self.xcoms, home / "logs"):
            folder.mkdir()
        self.postgres = stack.enter_context(running_postgres())
        database = self.postgres.airflow_url
        self.sandbox = stack.enter_context(
            Sandbox(
                {"queues": {"job": {"task_code": str(HERE / "faults_code")}}},
                retry_unit=0.5,
                concurrency=4,
                processes=4,
                environment={"FAULTS_FOLDER": str(self._jobs)},
                directory=home / "sandbox",
            )
        )
        self.closed_port = free_port()
        secret, port = secrets.token_hex(32), free_port()
        receiver = stack.enter_context(running_receiver(self.sandbox.redis_url, secret))
        self.url = f"http://127.0.0.1:{port}"
        connections = self.sandbox.connections(receiver.url, secret)
        connections["redis_far"] = connections["redis_default"]
        connections["runqy_far"] = copy.deepcopy(connections["runqy_default"])
        connections["runqy_far"]["extra"]["redis_conn_id"] = "redis_far"
        stored = copy.deepcopy(connections["runqy_default"])
        stored["extra"]["callback_url"] = f"{self.url}/runqy"
        self.lineage = home / "lineage.json"
        self._shared = self._shared_settings()
        jwt_secret = secrets.token_hex(32)
        self.old_key, self.key = (Fernet.generate_key().decode() for _ in range(2))
        remote = {
            kind: {
                **pod_executor.remote_environment(home / kind, DAGS, self.url),
                **self._shared,
            }
            for kind in ("pod", "edge")
        }
        self.airflow = Airflow(
            home / "airflow",
            DAGS,
            {},
            database=database,
            parallelism=2 * CONCURRENCY,
            port=port,
            environment={
                **SETTINGS,
                **self._shared,
                "PYTHONPATH": str(HERE.parents[1]),
                **self._secrets_backend(connections),
                "AIRFLOW__API_AUTH__JWT_SECRET": jwt_secret,
                "AIRFLOW__CELERY__BROKER_URL": f"redis://127.0.0.1:{self.sandbox.redis_port}/1",
                "AIRFLOW__CELERY__RESULT_BACKEND": database.replace(
                    "postgresql+psycopg2", "db+postgresql"
                ),
                FERNET_KEY: self.key,
                "AIRFLOW__EDGE__API_URL": f"{self.url}/edge_worker/v1/rpcapi",
                pod_executor.ENVIRONMENT: json.dumps(remote["pod"]),
                pod_executor.FOLDER: str(self._pods),
            },
        )
        self.airflow.migrate()
        self._rotate_key(stored)
        stack.enter_context(self.airflow)
        self.airflow.start_component("triggerer", TRIGGERERS[1])
        for name in WORKERS:
            self.start_worker(name)
        edge = {
            "AIRFLOW__API_AUTH__JWT_SECRET": jwt_secret,
            "AIRFLOW__EDGE__API_URL": f"{self.url}/edge_worker/v1/rpcapi",
            "AIRFLOW__EDGE__JOB_POLL_INTERVAL": "1",
            # It does not reach this Redis, which all others reach.
            "AIRFLOW_CONN_REDIS_FAR": f"redis://127.0.0.1:{self.closed_port}",
            "AIRFLOW__OPENLINEAGE__NAMESPACE": "tests",
            "AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps(
                {"type": "file", "log_file_path": str(self.lineage), "append": True}
            ),
        }
        self.airflow.start_component(
            "edge worker", None, environment={**remote["edge"], **edge}
        )
        self.client = AirflowClient(self.url)
        self.client.wait_for_dags({"celery", "celery_batch", "pods", "edge"})

    def _shared_settings(self) -> dict[str, str]:
        """Return the settings of all processes, wherever they run."""
        return {
            # A DAG that names an executor is parsed only if that is configured.
            "AIRFLOW__CORE__EXECUTOR": ",".join(EXECUTORS),
            "AIRFLOW__CORE__XCOM_BACKEND": (
                "airflow.providers.common.io.xcom.backend.XComObjectStorageBackend"
            ),
            "AIRFLOW__COMMON_IO__XCOM_OBJECTSTORAGE_PATH": f"file://{self.xcoms}",
            "AIRFLOW__COMMON_IO__XCOM_OBJECTSTORAGE_THRESHOLD": "1000",
            "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(self.home / "logs"),
            # An API server on a busy machine is slow, above all in its first answers.
            "AIRFLOW__API_AUTH__JWT_LEEWAY": "300",
            "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "60",
        }

    def _secrets_backend(self, connections: dict[str, Any]) -> dict[str, str]:
        path = self.home / "connections.json"
        path.write_text(json.dumps(connections))
        return {
            "AIRFLOW__SECRETS__BACKEND": (
                "airflow.secrets.local_filesystem.LocalFilesystemBackend"
            ),
            "AIRFLOW__SECRETS__BACKEND_KWARGS": json.dumps(
                {"connections_file_path": str(path)}
            ),
        }

    def _rotate_key(self, connection: dict[str, Any]) -> None:
        """Store a connection with the old Fernet key, and exchange the key."""
        add = ("connections", "add", "runqy_stored", "--conn-json")
        old = {FERNET_KEY: self.old_key}
        self.airflow.run(*add, json.dumps(connection), environment=old)
        both = {FERNET_KEY: f"{self.key},{self.old_key}"}
        self.airflow.run("rotate-fernet-key", environment=both)

    # -- workers and pods ------------------------------------------------------------

    def start_worker(self, name: str) -> None:
        """Start a Celery worker."""
        options = ("--concurrency", str(CONCURRENCY), "--celery-hostname", f"{name}@%h")
        more = ("--skip-serve-logs", "--without-mingle", "--without-gossip")
        self.airflow.start_component("celery worker", name, *options, *more)

    def pod(self, run_id: str, task_id: str, *, try_number: int) -> int:
        """Return the process group of the newest pod of a task's try."""
        pods = self._pods.glob(f"*.{task_id}.{run_id}.{try_number}.*.pid")
        newest = max(pods, key=lambda path: path.stat().st_mtime_ns)
        return int(newest.read_text())

    def pods(self, run_id: str, task_id: str) -> int:
        """Count the pods that a task of a run had."""
        return sum(1 for _ in self._pods.glob(f"*.{task_id}.{run_id}.*.pid"))

    def pod_log(self, run_id: str, task_id: str, *, try_number: int) -> str:
        """Return what the pods of a task's try have written."""
        logs = self._pods.glob(f"*.{task_id}.{run_id}.{try_number}.log")
        return "".join(path.read_text() for path in logs)

    # -- jobs ------------------------------------------------------------------------

    def go(self, run_id: str) -> None:
        """Let the jobs of a run go on."""
        folder = self._jobs / run_id
        folder.mkdir(exist_ok=True)
        (folder / "go").touch()

    def job_of_pod(
        self, dag_id: str, run_id: str, task_id: str, *, try_number: int
    ) -> str:
        """Wait until a task's try waits in its pod, and return the id of its job."""
        found: list[str] = []

        def waits() -> bool:
            log = self.pod_log(run_id, task_id, try_number=try_number)
            found[:] = _JOB.findall(log)
            ti = self.tasks(dag_id, run_id)[task_id]
            return bool(found and self.client.xcom(ti, "runqy_job"))

        self.wait(f"the job of try {try_number}", waits)
        return found[0]

    def enqueued(self) -> int:
        """Count the jobs that runqy was ever given."""
        with Redis.from_url(self.sandbox.redis_url) as redis:
            return sum(1 for _ in redis.scan_iter("asynq:t:*", count=1000))

    # -- waiting ---------------------------------------------------------------------

    def wait(self, what: str, condition: Callable[[], bool]) -> None:
        """Wait until a condition holds.

        Raises:
            TimeoutError: It does not hold in time.
        """
        end = time.monotonic() + LIMIT
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError(f"after {LIMIT:.0f} s not yet: {what}")
            time.sleep(0.5)

    def wait_deferred(
        self, dag_id: str, run_id: str, *task_ids: str, count: int
    ) -> None:
        """Wait until all instances of tasks wait for their jobs in a triggerer."""

        def are_deferred() -> bool:
            found = self.client.task_instances(dag_id, run_id)
            states = [ti["state"] for ti in found if ti["task_id"] in task_ids]
            return states == ["deferred"] * count

        self.wait(f"{count} deferred tasks of {dag_id}", are_deferred)

    def end_of(self, dag_id: str, run_id: str) -> str:
        """Wait for the end of a run, and return its state."""
        self.wait(
            f"the end of {dag_id}",
            lambda: self.client.state(dag_id, run_id) in FINISHED,
        )
        return self.client.state(dag_id, run_id)

    def tasks(self, dag_id: str, run_id: str) -> dict[str, dict[str, Any]]:
        """Return the task instances of a run that are not mapped, by their ids."""
        found = self.client.task_instances(dag_id, run_id)
        return {ti["task_id"]: ti for ti in found}
