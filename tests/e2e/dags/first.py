"""The first DAG of a new user, with the connection made in the UI."""

from __future__ import annotations

from airflow.sdk import dag, task

from runqy_provider.operators.runqy import RunqyOperator


@dag(schedule=None)
def first() -> None:
    """Transcribe, and use the result."""
    transcribe = RunqyOperator(
        task_id="transcribe",
        runqy_queue="transcribe.high",
        payload={"input": "hello.wav"},
    )

    @task
    def show(transcript: dict[str, str]) -> str:
        """Return the text."""
        return transcript["text"]

    show(transcribe.output)


first()
