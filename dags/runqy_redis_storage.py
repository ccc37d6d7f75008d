# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Results that runqy itself keeps: the queue has redis_storage: true."""

from __future__ import annotations

from airflow.sdk import dag

from runqy_provider.operators.runqy import RunqyOperator


@dag(schedule=None, tags=["runqy"])
def runqy_redis_storage() -> None:
    """Classify with our helper, and add up without it."""
    RunqyOperator(
        task_id="classify",
        runqy_queue="classify",
        payload={"image": "cat.jpeg"},
        sink="redis_storage",
    )
    RunqyOperator(
        task_id="by_guide",
        runqy_queue="guide_redis_storage",
        payload={"numbers": [7, 8, 9]},
        sink="redis_storage",
    )


runqy_redis_storage()
