"""Tasks whose set-up is broken, each in its own way."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import dag

from runqy_provider.operators.runqy import RunqyOperator

#: Arguments of the tasks; each connection but ``good`` is broken as its name says.
TASKS: dict[str, dict[str, Any]] = {
    "wrong_key": {"runqy_conn_id": "wrong_key"},
    "wrong_queue": {"runqy_queue": "inferrence.high"},
    "redis_away": {"runqy_conn_id": "redis_away"},
    "bucket_denied": {"sink": "s3://no-such-bucket/results"},
    "callback_unreachable": {"runqy_conn_id": "callback_unreachable"},
    "callback_web_page": {"runqy_conn_id": "callback_web_page"},
    "wrong_secret": {"runqy_conn_id": "wrong_secret"},
    "no_driver": {"runqy_queue": "no_driver", "sink": "sql://results_db/tasks"},
    "returns_silently": {"runqy_queue": "silent"},
    "crashes": {"runqy_queue": "crashing"},
    "no_worker": {"runqy_queue": "idle", "runqy_conn_id": "no_admin_key"},
}


@dag(schedule=None, max_active_tasks=len(TASKS))
def broken() -> None:
    """Run all of them."""
    for task_id, arguments in TASKS.items():
        RunqyOperator(
            task_id=task_id,
            **{
                "runqy_queue": "transcribe.high",
                "runqy_conn_id": "good",
                "payload": {"input": "hello.wav"},
                "delivery_timeout": timedelta(seconds=85),
                **arguments,
            },
        )


broken()
