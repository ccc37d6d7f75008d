# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The data in S3, metadata in a table, and a webhook that ends the wait."""

from __future__ import annotations

from airflow.sdk import dag

from runqy_provider.operators.runqy import RunqyOperator


@dag(schedule=None, tags=["runqy"])
def runqy_combined() -> None:
    """Render an image: the first sink stores it, the others get its URI."""
    RunqyOperator(
        task_id="render",
        runqy_queue="render",
        payload={"side": 50},
        sink=["s3://results/combined", "sql://results_db/tasks", "webhook"],
    )


runqy_combined()
