# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Results in a folder that workers and Airflow mount at the same path."""

from __future__ import annotations

from airflow.sdk import dag

from runqy_provider.operators.runqy import RunqyOperator


@dag(schedule=None, tags=["runqy"])
def runqy_shared_folder() -> None:
    """Add up after the guide, and render with our helper."""
    RunqyOperator(
        task_id="by_guide",
        runqy_queue="guide_file",
        payload={"numbers": [1, 3, 5]},
        sink="file://{{ var.value.runqy_results_folder }}",
    )
    RunqyOperator(
        task_id="render",
        runqy_queue="render",
        payload={"side": 100},
        sink="file://{{ var.value.runqy_results_folder }}/renders",
    )


runqy_shared_folder()
