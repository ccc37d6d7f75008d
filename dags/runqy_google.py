# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Results in Google Cloud Storage: needs a bucket and a connection to it."""

from __future__ import annotations

from airflow.sdk import dag

from runqy_provider.operators.runqy import RunqyOperator


@dag(schedule=None, tags=["runqy"])
def runqy_google() -> None:
    """Add up after the guide, and render with our helper."""
    RunqyOperator(
        task_id="by_guide",
        runqy_queue="guide_gs",
        payload={"numbers": [3, 5, 7]},
        sink="gs://results",
    )
    RunqyOperator(
        task_id="render",
        runqy_queue="render",
        payload={"side": 20},
        sink="gs://results/renders",
    )


runqy_google()
