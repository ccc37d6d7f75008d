# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Results in a table; docs/how-to/sinks/sql.md has its CREATE TABLE."""

from __future__ import annotations

from airflow.sdk import dag

from runqy_provider.operators.runqy import RunqyOperator


@dag(schedule=None, tags=["runqy"])
def runqy_sql() -> None:
    """Add up after the guide, with one UPDATE; resize with our helper."""
    RunqyOperator(
        task_id="by_guide",
        runqy_queue="guide_sql",
        payload={"numbers": [1, 2, 4]},
        sink="sql://results_db/tasks",
    )
    RunqyOperator(
        task_id="resize",
        runqy_queue="resize",
        payload={"scene": 1},
        sink="sql://results_db/tasks",
    )


runqy_sql()
