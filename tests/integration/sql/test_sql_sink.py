"""Results in a table of a real PostgreSQL."""

from __future__ import annotations

import asyncio
import json
import re
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event

from runqy_provider.context import load_context
from runqy_provider.errors import (
    BadDelivery,
    JobFailed,
    Misconfigured,
    NoAccess,
    NotThere,
    SinkUnavailable,
)
from runqy_provider.hooks.result import RunqyResultHook
from runqy_provider.models import JobRef, is_reference
from runqy_provider.sinks.registry import sink_from_uri
from runqy_provider.sinks.sql import source as sql_arrivals
from runqy_provider.sinks.sql.engine import sql_engine
from runqy_provider.sinks.sql.source import SqlSource
from runqy_provider.triggers.delivery import DeliveryTrigger
from runqy_provider.waiters import registry
from runqy_provider.waiters.registry import close_waiters
from runqy_provider.waiters.wait_any import wait_any
from runqy_sandbox.process.net import free_port
from tests.support import harness
from tests.support.harness import Run, outcome_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from devtools.servers.postgres import Postgres
    from tests.support.stack import Gate

pytestmark = pytest.mark.usefixtures("connect", "no_settling")


def run_of(
    sink: str, payload: Any = None, runqy_queue: str = "helper", **arguments: Any
) -> Run:
    return harness.run_of(payload, runqy_queue, sink=sink, **arguments)


def statements_of(conn_id: str) -> list[str]:
    """Return a list that grows with every statement of a connection on a table."""
    statements: list[str] = []

    def note(*arguments: Any) -> None:
        if " FROM " in arguments[2]:
            statements.append(arguments[2])

    event.listen(sql_engine(conn_id), "before_cursor_execute", note)
    return statements


async def first_event(run: Run) -> Any:
    return (await anext(run.trigger.run())).payload


@pytest.mark.parametrize("value", [{"a": [1, None]}, None, "text", "7", 0])
@pytest.mark.parametrize("name", ["tasks", "text"])
def test_sql_sink_value_is_returned(name: str, value: Any, table: str) -> None:
    """``tasks`` has ids of type uuid and results of type jsonb, the other texts."""
    sink = f"sql://pg/{table if name == 'text' else name}"
    assert outcome_of(run_of(sink, {"value": value})) == value


def test_sql_sink_task_code_of_the_guide_runs_unmodified() -> None:
    """It runs an UPDATE: the operator has inserted the row."""
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


def test_sql_sink_fifty_megabytes_are_returned(table: str) -> None:
    image = outcome_of(run_of(f"sql://pg/{table}", {"bytes": 50_000_000}))

    assert is_reference(image)
    assert (image["content_type"], image["size"]) == ("image/png", 50_000_000)
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
    ("sql://away/{table}", SinkUnavailable, "away"),
]


@pytest.mark.parametrize(("sink", "error", "words"), BAD, ids=[row[0] for row in BAD])
def test_sql_sink_invalid_input_enqueues_nothing(
    sink: str,
    error: type[Exception],
    words: str,
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
        "AWAY": f"postgresql://runqy:p@127.0.0.1:{free_port()}/postgres",
    }.items():
        monkeypatch.setenv(f"AIRFLOW_CONN_{name}", url)
    run = run_of(sink.format(table=table), {"value": 1})

    with pytest.raises(error, match=words) as caught:
        outcome_of(run)
    assert "wrong@" not in str(caught.value)
    assert "runqy_job" not in run.xcoms


def test_sql_sink_row_deleted_during_wait_fails_the_wait(
    postgres: Postgres, table: str
) -> None:
    run = run_of(f"sql://pg/{table}", {}, "idle").execute()

    looked = statements_of("pg")

    async def scenario() -> dict[str, Any]:
        waiting = asyncio.ensure_future(first_event(run))
        async with asyncio.timeout(20):
            while len(looked) < 2:  # the second begins when the first is done
                await asyncio.sleep(0.02)
            with postgres.connect() as connection:
                connection.execute(f"DELETE FROM {table}")
            event: dict[str, Any] = await waiting
            return event

    event = asyncio.run(scenario())
    run.resume(event)
    assert isinstance(run.error, NotThere)
    assert "deleted" in str(run.error)


def test_sql_sink_row_deleted_before_first_poll_fails_the_wait(
    postgres: Postgres, table: str
) -> None:
    """The operator had inserted it: where a triggerer starts anew, nobody saw it."""
    run = run_of(f"sql://pg/{table}", {}, "idle").execute()
    with postgres.connect() as connection:
        connection.execute(f"DELETE FROM {table}")

    run.resume(run.fire())
    assert isinstance(run.error, NotThere)
    assert "deleted" in str(run.error)


def test_sql_sink_sensor_without_job_waits_for_row(
    postgres: Postgres, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may look before anybody has inserted the row."""
    monkeypatch.setattr(sql_arrivals, "MISSING_GRACE", 0.0)
    trigger = DeliveryTrigger(
        runqy_conn_id="runqy_default",
        delivery_id="r",
        sink=f"sql://pg/{table}",
        deadline=time.time() + 20,
    )
    looked = statements_of("pg")

    async def scenario() -> Any:
        waiting = asyncio.ensure_future(anext(trigger.run()))
        async with asyncio.timeout(20):
            while len(looked) < 3:
                await asyncio.sleep(0.02)
            with postgres.connect() as connection:
                connection.execute(
                    f"INSERT INTO {table} (id, status) VALUES ('r', 'completed')"
                )
            event = await waiting
        await close_waiters()
        return event

    assert asyncio.run(scenario()).payload["event"] == "arrived"


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


def test_sql_sink_timeout_names_status_of_row(table: str) -> None:
    run = run_of(
        f"sql://pg/{table}", {}, "idle", delivery_timeout=timedelta(seconds=1)
    ).execute()
    run.resume(run.fire())

    words = str(run.error)
    assert f"table {table}" in words
    assert "'pending'" in words


def test_sql_sink_database_restart_loses_nothing(
    postgres: Postgres, table: str
) -> None:
    run = run_of(f"sql://pg/{table}", {}, "idle").execute()
    delivery_id = run.xcoms["runqy_job"]["delivery_id"]
    looked = statements_of("pg")

    async def scenario() -> dict[str, Any]:
        waiting = asyncio.ensure_future(first_event(run))
        while not looked:
            await asyncio.sleep(0.02)
        await asyncio.to_thread(postgres.child.stop)
        await asyncio.sleep(1)  # looks fail meanwhile
        assert not waiting.done()
        await asyncio.to_thread(postgres.child.start)
        with postgres.connect() as connection:
            connection.execute(
                f"UPDATE {table} SET status = 'completed', result = '1' WHERE id = %s",
                [delivery_id],
            )
        async with asyncio.timeout(20):
            event: dict[str, Any] = await waiting
            return event

    assert run.resume(asyncio.run(scenario())).value == 1


def test_sql_sink_hundred_waits_share_select_and_notify_ends_them(
    postgres: Postgres,
    table: str,
    connect: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    connect()
    sink = sink_from_uri(f"sql://pg/{table}")
    access = load_context("runqy_default")
    ids = [f"row-{n}" for n in range(100)]
    with postgres.connect() as connection:
        for row_id in ids:
            connection.execute(
                f"INSERT INTO {table} (id, status) VALUES (%s, 'running')", [row_id]
            )
    statements = statements_of("pg")
    looks: list[int] = []
    poll = SqlSource.poll

    async def counted(source: SqlSource, addresses: Collection[str]) -> Any:
        looks.append(len(addresses))
        return await poll(source, addresses)

    monkeypatch.setattr(SqlSource, "poll", counted)

    async def scenario() -> tuple[int, list[Any], float]:
        waits = [
            asyncio.ensure_future(
                wait_any(
                    sink.bind(access).targets(JobRef(row_id)), deadline=time.time() + 30
                )
            )
            for row_id in ids
        ]
        with postgres.connect() as connection:
            async with asyncio.timeout(20):
                while True:
                    sessions = connection.execute(
                        "SELECT query FROM pg_stat_activity "
                        "WHERE backend_type = 'client backend' "
                        "AND pid <> pg_backend_pid()"
                    ).fetchall()
                    listen = f'LISTEN "runqy_{table}"'
                    is_listening = any(listen in query for (query,) in sessions)
                    # The first looks, and a sweep.
                    if is_listening and len(statements) >= 3:
                        break
                    await asyncio.sleep(0.02)
            # Old waits are looked at rarely: what wakes them now is the hint.
            await asyncio.sleep(0)
            (waiter,) = registry._waiters[asyncio.get_running_loop()].values()
            for group in waiter._waits.values():
                group[0].since -= 1000
            began = time.monotonic()
            with connection.transaction():
                connection.execute(f"UPDATE {table} SET status = 'completed'")
                for row_id in ids:
                    connection.execute(
                        "SELECT pg_notify(%s, %s)", [f"runqy_{table}", row_id]
                    )
            arrivals = await asyncio.gather(*waits)
            took = time.monotonic() - began
        await close_waiters()
        return len(sessions), arrivals, took

    sessions, arrivals, took = asyncio.run(scenario())

    assert sessions == 2  # one looks, one listens
    assert {arrival.status for arrival in arrivals} == {"completed"}
    assert took < access.config.max_poll_interval / 2
    assert looks[:2] == [100, 100]
    assert len(statements) == len(looks)  # one SELECT each, for however many


def test_sql_sink_sqlite_works(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite here, through the hook of another provider."""
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


def test_sql_sink_statements_of_the_docs_work(postgres: Postgres) -> None:
    page = Path(__file__).parents[3] / "docs" / "sinks.md"
    blocks = re.findall(
        r"^```sql\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL
    )
    with postgres.connect() as connection:
        connection.execute("CREATE SCHEMA docs")
        connection.execute("SET search_path TO docs")
        for block in blocks:
            connection.execute(block)
        connection.execute("LISTEN runqy_tasks")
        outcome = outcome_of(run_of("sql://pg/docs.tasks", {"value": [1]}))
        row = connection.execute("SELECT id, status, result FROM tasks").fetchone()
        told = next(connection.notifies(timeout=10))

    assert outcome == [1]
    assert row is not None
    assert row[1:] == ("completed", "[1]")
    assert told.payload == row[0]
