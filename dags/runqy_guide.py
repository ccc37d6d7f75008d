# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Task code written after runqy's guide, without our helper, runs as it is."""

from __future__ import annotations

from airflow.sdk import dag

from runqy_provider.operators.runqy import RunqyOperator


@dag(schedule=None, tags=["runqy"])
def runqy_guide() -> None:
    """Add up numbers, twice."""
    RunqyOperator(
        task_id="by_webhook",
        runqy_queue="guide_webhook",
        payload={"numbers": [1, 2, 3]},
        sink="webhook",
    )
    RunqyOperator(
        task_id="by_s3",
        runqy_queue="guide_s3",
        payload={"numbers": [4, 5, 6]},
        sink="s3://results",
    )


runqy_guide()
