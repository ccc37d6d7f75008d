# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Results in Azure Blob Storage: needs a container and a connection to it."""

from __future__ import annotations

from airflow.sdk import dag

from runqy_provider.operators.runqy import RunqyOperator


@dag(schedule=None, tags=["runqy"])
def runqy_azure() -> None:
    """Add up after the guide, and render with our helper."""
    RunqyOperator(
        task_id="by_guide",
        runqy_queue="guide_abfs",
        payload={"numbers": [4, 6, 8]},
        sink="abfs://results",
    )
    RunqyOperator(
        task_id="render",
        runqy_queue="render",
        payload={"side": 20},
        sink="abfs://results/renders",
    )


runqy_azure()
