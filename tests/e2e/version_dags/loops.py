"""The DAGs with loops, which Airflow has from 3.4 on."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, cast

from airflow.sdk import dag, task, task_group

from runqy_provider.airflow_compat import RELEASE
from runqy_provider.operators.runqy import RunqyOperator
from runqy_provider.operators.runqy_batch import RunqyBatchOperator
from runqy_provider.sensors.runqy import RunqySensor

#: What all jobs of these DAGs have in common.
COMMON: dict[str, Any] = {
    "runqy_conn_id": "good",
    "runqy_queue": "transcribe.high",
    "sink": "webhook",
    "defer_after": timedelta(0),
}

#: What an iteration says of the one before it.
PREVIOUS = "{{ loop.previous['text'] if loop.previous else 'nothing' }}"


@dag(schedule=None)
def looped() -> None:
    """Ask for the same in each iteration; one task uses the result before its own."""

    @task_group
    def body() -> None:
        job = RunqyOperator(task_id="job", payload={"input": "same.wav"}, **COMMON)
        batch = RunqyBatchOperator(
            task_id="batch", payloads=[{"input": "same.wav"}] * 2, **COMMON
        )
        sensor = RunqySensor(
            task_id="sensor",
            delivery_id="{{ dag_run.conf['deliveries'][loop.index] }}",
            sink="webhook",
            runqy_conn_id="good",
        )
        follow = RunqyOperator(task_id="follow", payload={"input": PREVIOUS}, **COMMON)
        [job, batch, sensor] >> follow

    @task
    def gather(results: Any) -> list[str]:
        return [result["text"] for result in results]

    # Older versions of Airflow, and so their types, have no loops.
    group = cast("Any", body).loop(max_iterations=3)
    gather(group.children["body.follow"].output)


@dag(schedule=None)
def looped_waiting() -> None:
    """Wait in each iteration for a job that no worker takes."""

    @task_group
    def body() -> None:
        RunqyOperator(
            task_id="wait",
            payload={"same": 1},
            retries=1,
            retry_delay=timedelta(seconds=1),
            **{**COMMON, "runqy_queue": "idle"},
        )

    cast("Any", body).loop(max_iterations=2)


if RELEASE >= (3, 4):
    looped()
    looped_waiting()
