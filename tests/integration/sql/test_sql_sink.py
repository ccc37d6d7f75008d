"""Results in a table of a real PostgreSQL."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from runqy_provider.errors import (
    BadDelivery,
    JobFailed,
    Misconfigured,
    NoAccess,
    NotThere,
    SinkUnavailable,
)
from runqy_provider.hooks.result import RunqyResultHook
from runqy_provider.models import is_reference
from runqy_sandbox.process.net import free_port
from tests.integration.sql.helpers import run_of
from tests.support.harness import outcome_of

if TYPE_CHECKING:
    from devtools.servers.postgres import Postgres
    from tests.support.stack import Gate

pytestmark = pytest.mark.usefixtures("connect", "no_settling")


@pytest.mark.parametrize("value", [{"a": [1, None]}, None, "text", "7", 0])
@pytest.mark.parametrize("name", ["tasks", "text"])
def test_sql_sink_value_is_returned(name: str, value: Any, table: str) -> None:
    """``tasks`` has ids of type uuid and results of type jsonb, the other has text."""
    sink = f"sql://pg/{table if name == 'text' else name}"
    assert outcome_of(run_of(sink, {"value": value})) == value


def test_sql_sink_task_code_of_the_guide_runs_unmodified() -> None:
    """The guide's code runs an UPDATE: the operator has inserted the row."""
    run = run_of("sql://pg/tasks", {"numbers": [1, 2]}, "guide_sql")

    assert outcome_of(run) == {"sum": 3}


def test_sql_sink_task_code_of_the_guide_reports_failure(
    postgres: Postgres, table: str
) -> None:
    run = run_of(f"sql://pg/{table}", {}, "idle").execute()
    delivery_id = run.xcoms["runqy_job"]["delivery_id"]
    with postgres.connect() as connection:
        connection.execute(
            f"UPDATE {table} SET status = 'failed', result = 'no GPU' WHERE id = %s",
            [delivery_id],
        )

    run.resume(run.fire())
    assert isinstance(run.error, JobFailed)
    assert "no GPU" in str(run.error)


def test_sql_sink_failure_by_helper_has_traceback(table: str) -> None:
    with pytest.raises(JobFailed, match="ValueError: too dark") as caught:
        outcome_of(run_of(f"sql://pg/{table}", {"error": "too dark"}))
    assert "raise ValueError" in str(caught.value.traceback)


def test_sql_sink_other_column_names_are_used(postgres: Postgres, table: str) -> None:
    with postgres.connect() as connection:
        connection.execute(
            f"CREATE SCHEMA s_{table} CREATE TABLE runs (job varchar(64), state text, "
            "out jsonb, ended timestamp)"
        )
    names = "id=job&status=state&result=out&completed_at=ended"

    assert outcome_of(run_of(f"sql://pg/s_{table}.runs?{names}", {"value": [1]})) == [1]


def test_sql_sink_without_inserted_row_helper_inserts_it(
    postgres: Postgres, table: str, gate: Gate
) -> None:
    run = run_of(f"sql://pg/{table}?insert=false", {"value": 5, **gate.closed})
    run.execute()
    with postgres.connect() as connection:
        assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)
    gate.open()

    assert run.resume(run.fire()).value == 5


def test_sql_sink_first_final_status_stays(
    postgres: Postgres, table: str, gate: Gate
) -> None:
    run = run_of(f"sql://pg/{table}", {"value": 1, **gate.closed}).execute()
    delivery_id = run.xcoms["runqy_job"]["delivery_id"]
    with postgres.connect() as connection:
        connection.execute(
            f"UPDATE {table} SET status = 'completed', result = '2' WHERE id = %s",
            [delivery_id],
        )
    gate.open()

    assert run.resume(run.fire()).value == 2


def test_sql_sink_large_result_is_returned(table: str) -> None:
    image = outcome_of(run_of(f"sql://pg/{table}", {"bytes": 12_000_000}))

    assert is_reference(image)
    assert (image["content_type"], image["size"]) == ("image/png", 12_000_000)
    with RunqyResultHook().read(image).stream() as stream:
        assert stream.read(4) == b"xxxx"


def test_sql_sink_bytea_column_returns_bytes(postgres: Postgres, table: str) -> None:
    with postgres.connect() as connection:
        connection.execute(
            f"ALTER TABLE {table} ALTER COLUMN result TYPE bytea USING NULL"
        )
    run = run_of(f"sql://pg/{table}", {}, "idle").execute()
    with postgres.connect() as connection:
        connection.execute(
            f"UPDATE {table} SET status = 'completed', result = %s", [b"\x00\xff"]
        )

    image = run.resume(run.fire()).value
    assert image["content_type"] == "application/octet-stream"
    assert RunqyResultHook().read(image).bytes() == b"\x00\xff"


BAD = [
    ("sql://pg/nothing_here", NotThere, "(?s)nothing_here.*Create it"),
    ("sql://pg/{table}?id=job", NotThere, '"job" does not exist'),
    ("sql://pg/{table}?result=out", NotThere, '"out" does not exist'),
    ("sql://pg/numbered", Misconfigured, "text or a UUID"),
    ("sql://pg/a;b", Misconfigured, "not a valid name"),
    ("sql://pg/{table}?result=a,b", Misconfigured, "not a valid name"),
    ("sql://pg/{table}?color=red", Misconfigured, "color"),
    ("sql://pg/{table}?insert=maybe", Misconfigured, "maybe"),
    ("sql://pg/{table}?notify=a;b", Misconfigured, "channel"),
    ("sql:///{table}", Misconfigured, "names no connection"),
    ("sql://redis_default/{table}", Misconfigured, "not a SQL database"),
    ("sql://wrong_password/{table}", NoAccess, "wrong_password"),
    ("sql://reader/{table}", NoAccess, "permission denied"),
    ("sql://unavailable/{table}", SinkUnavailable, "unavailable"),
]


@pytest.mark.parametrize(("sink", "error", "message"), BAD, ids=[row[0] for row in BAD])
def test_sql_sink_invalid_input_enqueues_nothing(
    sink: str,
    error: type[Exception],
    message: str,
    table: str,
    postgres: Postgres,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with postgres.connect() as connection:
        connection.execute(
            "CREATE TABLE IF NOT EXISTS numbered (id integer, status text, "
            "result text, completed_at timestamp)"
        )
        connection.execute("DROP ROLE IF EXISTS reader")
        connection.execute("CREATE ROLE reader LOGIN PASSWORD 'r'")
    at = f"127.0.0.1:{postgres.port}/postgres"
    for name, url in {
        "WRONG_PASSWORD": f"postgresql://runqy:wrong@{at}",
        "READER": f"postgresql://reader:r@{at}",
        "UNAVAILABLE": f"postgresql://runqy:p@127.0.0.1:{free_port()}/postgres",
    }.items():
        monkeypatch.setenv(f"AIRFLOW_CONN_{name}", url)
    run = run_of(sink.format(table=table), {"value": 1})

    with pytest.raises(error, match=message) as caught:
        outcome_of(run)
    assert "wrong@" not in str(caught.value)
    assert "runqy_job" not in run.xcoms


def test_sql_sink_result_with_nan_is_bad_delivery(
    postgres: Postgres, table: str
) -> None:
    run = run_of(f"sql://pg/{table}", {}, "idle").execute()
    with postgres.connect() as connection:
        connection.execute(
            f"UPDATE {table} SET status = 'completed', result = %s", ['{"loss": NaN}']
        )

    run.resume(run.fire())
    assert isinstance(run.error, BadDelivery)
    assert "NaN is not JSON" in str(run.error)


def test_sql_sink_sqlite_works(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite is used through the hook of its Airflow provider."""
    import sqlite3

    path = tmp_path / "results.db"
    with sqlite3.connect(path) as connection:
        connection.execute(
            "CREATE TABLE results (id text, status text, result text, "
            "completed_at timestamp)"
        )
    monkeypatch.setenv(
        "AIRFLOW_CONN_LITE", json.dumps({"conn_type": "sqlite", "host": str(path)})
    )
    run = run_of("sql://lite/results", {}, "idle").execute()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE results SET status = 'completed', result = '[1]'")

    assert run.resume(run.fire()).value == [1]


def test_sql_sink_missing_table_in_sqlite_is_an_error(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(
        "AIRFLOW_CONN_LITE",
        json.dumps({"conn_type": "sqlite", "host": str(tmp_path / "empty.db")}),
    )

    with pytest.raises(NotThere, match="no such table"):
        outcome_of(run_of("sql://lite/results", {"value": 1}))
