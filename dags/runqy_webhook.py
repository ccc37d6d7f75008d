# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""A job, its result by webhook, and a task that uses it."""

from __future__ import annotations

from typing import Any

from airflow.sdk import dag, task

from runqy_provider.operators.runqy import RunqyOperator


@dag(schedule=None, tags=["runqy"])
def runqy_webhook() -> None:
    """Transcribe and summarise."""
    # [START webhook]
    transcribe = RunqyOperator(
        task_id="transcribe",
        runqy_queue="transcribe.high",
        payload={"input": "s3://audio/{{ run_id }}.wav"},
        sink="webhook",
    )
    # [END webhook]

    @task
    def summarise(transcript: dict[str, Any]) -> str:
        """Use the result: it is an ordinary value."""
        return f"{transcript['words']} words"

    summarise(transcribe.output)


runqy_webhook()
