"""An executor that starts what the KubernetesExecutor starts in a pod, without a pod.

Each task is a process of its own, with the pod's command and the pod's environment: it
knows the address of Airflow's API server and the DAGs, and nothing else of Airflow.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.executors.base_executor import BaseExecutor

from runqy_sandbox.process.net import free_port

if TYPE_CHECKING:
    from collections.abc import Sequence

#: The environment of the pods, as JSON, and the folder for what they write.
ENVIRONMENT, FOLDER = "RUNQY_TESTS_POD_ENVIRONMENT", "RUNQY_TESTS_PODS"

#: How this executor is configured, under the name that tasks give it.
PATH = "pod:tests.e2e.pod_executor.PodExecutor"

COMMAND = (sys.executable, "-m", "airflow.sdk.execution_time.execute_workload")


def remote_environment(home: Path, dags: Path, url: str) -> dict[str, str]:
    """Return all that a machine knows which reaches nothing of Airflow but its API.

    Args:
        home: Its own folder for Airflow.
        dags: The folder of the DAGs.
        url: Address of Airflow's API server.
    """
    return {
        **{name: os.environ[name] for name in ("PATH", "HOME")},
        "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        # Whoever asks a database is refused.
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": (
            f"postgresql+psycopg2://nobody@127.0.0.1:{free_port()}/none"
        ),
    }


class PodExecutor(BaseExecutor):
    """Runs each task as a process that stands for a pod."""

    def start(self) -> None:
        """Make what is needed; Airflow calls this once."""
        self._pods: dict[Any, subprocess.Popen[bytes]] = {}
        self._folder = Path(os.environ[FOLDER])
        self._environment = json.loads(os.environ[ENVIRONMENT])

    def _process_workloads(self, workload_items: Sequence[Any]) -> None:
        for workload in workload_items:
            ti = workload.ti
            name = f"{ti.dag_id}.{ti.task_id}.{ti.run_id}.{ti.try_number}"
            with (self._folder / f"{name}.log").open("ab") as log:
                pod = subprocess.Popen(
                    [*COMMAND, "--json-string", workload.model_dump_json()],
                    env=self._environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    # A pod has its own first process, which the kubelet signals.
                    start_new_session=True,
                )
            (self._folder / f"{name}.{pod.pid}.pid").write_text(str(pod.pid))
            self._pods[ti.key] = pod
            del self.queued_tasks[ti.key]
            self.running.add(ti.key)

    def sync(self) -> None:
        """Tell Airflow which pods have ended, and how."""
        for key, pod in list(self._pods.items()):
            status = pod.poll()
            if status is not None:
                del self._pods[key]
                (self.fail if status else self.success)(key)

    def end(self) -> None:
        """End all pods."""
        for pod in self._pods.values():
            os.killpg(pod.pid, signal.SIGKILL)
            pod.wait()

    terminate = end
