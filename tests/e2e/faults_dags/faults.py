# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Jobs to be caught in flight; the run's conf says how many, and how they behave."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import dag, get_current_context, task

from runqy_provider.operators.runqy import RunqyOperator


def make(
    dag_id: str,
    retries: int = 0,
    retry_delay: timedelta = timedelta(seconds=1),
    defer_after: timedelta = timedelta(0),
) -> None:
    """Make a DAG whose tasks are retried so often, and wait in the slot for so long."""

    @dag(dag_id=dag_id, schedule=None, max_active_tasks=500, max_active_runs=20)
    def faults() -> None:
        """Enqueue many jobs at once."""

        @task(retries=3, retry_delay=timedelta(seconds=1))
        def payloads() -> list[dict[str, Any]]:
            """List them."""
            run = get_current_context()["dag_run"]
            conf = run.conf or {}
            own = {"run": run.run_id, "mode": conf["mode"]}
            return [{"index": index, **own} for index in range(conf["jobs"])]

        RunqyOperator.partial(
            task_id="job",
            runqy_queue="{{ dag_run.conf['queue'] }}",
            sink="{{ dag_run.conf['sink'] }}",
            runqy_conn_id="{{ dag_run.conf['conn_id'] }}",
            defer_after=defer_after,
            delivery_timeout=timedelta(minutes=10),
            retries=retries,
            retry_delay=retry_delay,
            max_active_tis_per_dag=500,
        ).expand(payload=payloads())

    faults()


# No retry hides what a fault does to a task.
make("faults")
# But for one whose worker is killed in the slot,
make("faults_in_slots", retries=2, defer_after=timedelta(minutes=2))
# and for one that Airflow starts while its own API server is unavailable, and so fails.
make("faults_retried", retries=3, retry_delay=timedelta(seconds=20))
