# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Jobs whose tasks run by the CeleryExecutor, in pods, and on an Edge worker."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import dag, get_current_context, task

from runqy_provider.hooks.result import RunqyResultHook
from runqy_provider.hooks.runqy import RunqyHook
from runqy_provider.operators.runqy import RunqyOperator
from runqy_provider.operators.runqy_batch import RunqyBatchOperator

#: How a worker that is killed is retried.
RETRIED: dict[str, Any] = {"retries": 3, "retry_delay": timedelta(seconds=1)}

#: Bytes of a result that goes to the XCom backend's storage.
LARGE = 5000

S3 = "s3://results/executors"


@task(retries=3, retry_delay=timedelta(seconds=1))
def payloads(kind: str) -> list[dict[str, Any]]:
    """List payloads; the run's conf says how many."""
    run = get_current_context()["dag_run"]
    count = (run.conf or {})[kind]
    return [{"index": index, **own(run.run_id)} for index in range(count)]


def own(run_id: str = "{{ run_id }}") -> dict[str, str]:
    """Return what the task code must know of a run."""
    return {"run": run_id, "mode": ""}


@dag(schedule=None, max_active_tasks=500)
def celery() -> None:
    """Two kinds of jobs: one ends in a triggerer, the other on a worker."""
    RunqyOperator.partial(
        task_id="webhook", runqy_queue="job", sink="webhook", **RETRIED
    ).expand(payload=payloads.override(task_id="of_webhook")("webhook"))
    RunqyOperator.partial(
        task_id="s3", runqy_queue="job", sink=S3, end_from_trigger=False, **RETRIED
    ).expand(payload=payloads.override(task_id="of_s3")("s3"))


@dag(schedule=None)
def celery_batch() -> None:
    """One task with many jobs, and one that reads all their results."""
    batch = RunqyBatchOperator(
        task_id="batch",
        runqy_queue="job",
        payloads=payloads("batch"),
        sink="webhook",
        returns="reference",
        max_in_flight=400,
        **RETRIED,
    )

    @task(retries=3, retry_delay=timedelta(seconds=1))
    def summary(results: Any) -> dict[str, Any]:
        """Say how many results there are, and whether each is at its place."""
        found = RunqyResultHook().read_batch(results)
        indexes = [result.value["index"] for result in found]
        in_order = indexes == list(range(len(indexes)))
        return {"results": len(indexes), "are_in_order": in_order}

    summary(batch.output)


@dag(schedule=None)
def pods() -> None:
    """Tasks in pods: one ends in the triggerer, one in a second pod."""

    @task
    def length(result: dict[str, str]) -> int:
        """Read a result that is too large for XCom in the database."""
        return len(result["index"])

    for name, sink, in_triggerer in (("webhook", "webhook", None), ("s3", S3, False)):
        job = RunqyOperator(
            task_id=name,
            runqy_queue="job",
            payload={"index": "x" * LARGE, **own()},
            sink=sink,
            runqy_conn_id="runqy_stored",
            end_from_trigger=in_triggerer,
            executor="pod",
        )
        length.override(task_id=f"length_of_{name}")(job.output)


@dag(schedule=None)
def killed_pods() -> None:
    """A task that waits in its pod, and is retried."""
    RunqyOperator(
        task_id="waits",
        runqy_queue="job",
        payload={"index": 1, **own()},
        sink="webhook",
        defer_after=timedelta(minutes=5),
        executor="pod",
        **RETRIED,
    )


@dag(schedule=None)
def edge() -> None:
    """Tasks on an Edge worker, and the check there."""
    for name, sink in (("webhook", "webhook"), ("s3", S3)):
        RunqyOperator(
            task_id=name,
            runqy_queue="job",
            payload={"index": name, **own()},
            sink=sink,
            executor="edge",
        )

    @task(executor="edge")
    def check(conn_id: str) -> list[str]:
        """Check a connection from where the tasks run; return what failed."""
        _, report = RunqyHook(conn_id).test_connection()
        return [line for line in report.splitlines() if line.startswith("[failed]")]

    check.override(task_id="check")("runqy_default")
    check.override(task_id="check_far")("runqy_far")
    RunqyOperator(
        task_id="far",
        runqy_queue="job",
        payload={"index": "far", **own()},
        sink="webhook",
        runqy_conn_id="runqy_far",
        executor="edge",
    )


celery()
celery_batch()
pods()
killed_pods()
edge()
