"""The DAGs that run on every version of Airflow."""

from __future__ import annotations

import os
import signal
import threading
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import dag, task

from runqy_provider.airflow_compat import RELEASE
from runqy_provider.operators.runqy import RunqyOperator
from runqy_provider.operators.runqy_batch import RunqyBatchOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

#: Seconds after which the first process of a ``KilledOnce`` is killed, from the moment
#: at which its job is enqueued.
LIFETIME = 1.0


class KilledOnce(RunqyOperator):
    """Its process is killed while it waits in its slot, in its first try.

    Airflow 3.0 and 3.1.0 never retry after that: there the first try fails.
    """

    def execute(self, context: Context) -> Any:
        """Enqueue the job, and wait."""
        if context["ti"].try_number == 1:
            signal.signal(signal.SIGALRM, _end)
            threading.Thread(target=self._send_alarm, daemon=True).start()
        return super().execute(context)

    def _send_alarm(self) -> None:
        while self._execution is None or self._execution.job is None:
            time.sleep(0.05)
        time.sleep(LIFETIME)
        os.kill(os.getpid(), signal.SIGALRM)


def _end(*_: object) -> None:
    if RELEASE < (3, 1, 8):
        raise RuntimeError("the first try ends")
    os.kill(os.getpid(), signal.SIGKILL)


@dag(schedule=None)
def results() -> None:
    """Deliver results to two sinks, and use one of them."""

    @task
    def length(result: dict[str, Any]) -> int:
        return len(result["text"])

    arguments: dict[str, Any] = {
        "runqy_conn_id": "good",
        "runqy_queue": "transcribe.high",
        "payload": {"input": "hello.wav"},
        "defer_after": timedelta(0),
    }
    webhook = RunqyOperator(task_id="webhook", sink="webhook", **arguments)
    RunqyOperator(task_id="s3", sink="s3://results/versions", **arguments)
    length(webhook.output)


@dag(schedule=None)
def pods() -> None:
    """Two pods, one after the other: what enqueues, and what takes the result."""
    RunqyOperator(
        task_id="wait",
        runqy_conn_id="good",
        runqy_queue="idle",
        sink="webhook",
        defer_after=timedelta(0),
        end_from_trigger=False,
        executor="pod",
    )


@dag(schedule=None)
def waiting() -> None:
    """Wait for a job that no worker takes."""
    RunqyOperator(
        task_id="wait", runqy_conn_id="good", runqy_queue="idle", sink="webhook"
    )


@dag(schedule=None)
def killed() -> None:
    """Lose the first process of a task."""
    KilledOnce(
        task_id="wait",
        runqy_conn_id="good",
        runqy_queue="idle",
        sink="webhook",
        defer_after=timedelta(seconds=20),
        retries=1,
        retry_delay=timedelta(seconds=1),
    )


@dag(schedule=None)
def many() -> None:
    """Run more jobs than may be in flight, and a task for each result."""

    @task
    def length(result: dict[str, Any]) -> int:
        return len(result["text"])

    batch = RunqyBatchOperator(
        task_id="batch",
        runqy_conn_id="good",
        runqy_queue="transcribe.high",
        payloads=[{"input": f"{number}.wav"} for number in range(6)],
        sink="webhook",
        max_in_flight=4,
        returns="value",
        defer_after=timedelta(0),
    )
    length.expand(result=batch.output)


@dag(schedule=None)
def many_waiting() -> None:
    """Wait for jobs that no worker takes."""
    RunqyBatchOperator(
        task_id="wait",
        runqy_conn_id="direct",
        runqy_queue="idle",
        payloads=[{"number": number} for number in range(5)],
        sink="webhook",
    )


results()
if "pod:" in os.environ.get("AIRFLOW__CORE__EXECUTOR", ""):
    pods()
waiting()
killed()
many()
many_waiting()
