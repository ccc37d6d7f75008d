"""A worker that cannot write to its sink reports that by webhook; the task fails."""

from __future__ import annotations

import json
import sqlite3
import time
from typing import TYPE_CHECKING, Any

import pytest

from runqy_provider.errors import JobFailed
from runqy_provider.settings import load_settings
from runqy_provider.sinks.registry import sink_from_uri
from tests.support.harness import outcome_of, run_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("connect", "no_settling")


@pytest.fixture
def sql_sink(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The sink of a table that Airflow can read and the worker cannot write."""
    database = tmp_path / "results.db"
    with sqlite3.connect(database) as connection:
        connection.execute(
            "CREATE TABLE tasks (id text PRIMARY KEY, status text, result text, "
            "completed_at timestamp)"
        )
    conn = {"conn_type": "sqlite", "host": str(database)}
    name = f"local_{time.time_ns()}"
    monkeypatch.setenv(f"AIRFLOW_CONN_{name.upper()}", json.dumps(conn))
    return f"sql://{name}/tasks"


@pytest.mark.parametrize("deferrable", [True, False])
def test_failure_channel_worker_without_database_url_fails_task(
    sql_sink: str, *, deferrable: bool
) -> None:
    began = time.monotonic()
    with pytest.raises(JobFailed, match="RUNQY_DELIVERY_DATABASE_URL is not set"):
        outcome_of(run_of({"value": 1}, sink=sql_sink, deferrable=deferrable))
    assert time.monotonic() - began < 20


def test_failure_channel_retry_after_failure_enqueues_new_job(sql_sink: str) -> None:
    run = run_of({"value": 1}, sink=sql_sink)
    with pytest.raises(JobFailed):
        outcome_of(run)
    again = run.retried().execute()

    assert again.xcoms["runqy_job"]["job_id"] != run.xcoms["runqy_job"]["job_id"]


def test_failure_channel_without_webhook_is_not_used(
    sql_sink: str, connect: Callable[..., Any]
) -> None:
    connect(without=("callback_secret",))

    bound = sink_from_uri(sql_sink).bind(load_settings("runqy_default"))
    assert not bound.has_failure_channel


@pytest.mark.parametrize(
    ("sink", "is_used"),
    [
        ("sql://pg/tasks", True),
        ("amqp://broker/results", True),
        ("webhook", False),
        ("s3://results", False),
        ("redis_storage", False),
        (["sql://pg/tasks", "webhook"], False),
        (["sql://pg/tasks", "amqp://broker/results"], True),
        (["s3://results", "sql://pg/tasks"], False),
    ],
)
def test_failure_channel_is_used_only_for_sinks_without_webhook(
    sink: Any, *, is_used: bool
) -> None:
    bound = sink_from_uri(sink).bind(load_settings("runqy_default"))
    assert bound.has_failure_channel is is_used
