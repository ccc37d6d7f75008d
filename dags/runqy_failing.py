# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""A job that fails: the task fails with the handler's own error."""

from __future__ import annotations

from airflow.sdk import dag

from runqy_provider.operators.runqy import RunqyOperator


@dag(schedule=None, tags=["runqy"])
def runqy_failing() -> None:
    """Transcribe a recording that cannot be transcribed."""
    RunqyOperator(
        task_id="transcribe",
        runqy_queue="transcribe",
        payload={"input": "recording.silence"},
        sink="webhook",
    )


runqy_failing()
