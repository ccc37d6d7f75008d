"""Waits for rows: deleted rows, restarts of the database, and many waits at once."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event

from runqy_provider.errors import DeliveryTimeout, NotThere
from runqy_provider.models import JobRef
from runqy_provider.python_compat import timeout
from runqy_provider.settings import load_settings
from runqy_provider.sinks.registry import sink_from_uri
from runqy_provider.sinks.sql import sink as sql_sink
from runqy_provider.sinks.sql.engine import sql_engine
from runqy_provider.sinks.sql.sink import SqlSource
from runqy_provider.triggers.delivery import DeliveryTrigger
from runqy_provider.waiters.race import wait_any
from runqy_provider.waiters.waiter import close_waiters
from tests.integration.sql.helpers import run_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from devtools.servers.postgres import Postgres
    from tests.support.harness import Run

pytestmark = pytest.mark.usefixtures("connect", "no_settling")


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


def test_sql_sink_row_deleted_during_wait_fails_the_wait(
    postgres: Postgres, table: str
) -> None:
    run = run_of(f"sql://pg/{table}", {}, "idle").execute()

    statements = statements_of("pg")

    async def scenario() -> dict[str, Any]:
        waiting = asyncio.ensure_future(first_event(run))
        async with timeout(20):
            while len(statements) < 2:  # the first poll has ended
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
    """A restarted triggerer has not seen the row that the operator inserted."""
    run = run_of(f"sql://pg/{table}", {}, "idle").execute()
    with postgres.connect() as connection:
        connection.execute(f"DELETE FROM {table}")

    run.resume(run.fire())
    assert isinstance(run.error, NotThere)
    assert "deleted" in str(run.error)


def test_sql_sink_sensor_without_job_waits_for_row(
    postgres: Postgres, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sensor may poll before the row is inserted."""
    monkeypatch.setattr(sql_sink, "MISSING_GRACE", 0.0)
    trigger = DeliveryTrigger(
        runqy_conn_id="runqy_default",
        delivery_id="r",
        sink=f"sql://pg/{table}",
        deadline=time.time() + 20,
    )
    statements = statements_of("pg")

    async def scenario() -> Any:
        waiting = asyncio.ensure_future(anext(trigger.run()))
        async with timeout(20):
            while len(statements) < 3:
                await asyncio.sleep(0.02)
            with postgres.connect() as connection:
                connection.execute(
                    f"INSERT INTO {table} (id, status) VALUES ('r', 'completed')"
                )
            event = await waiting
        await close_waiters()
        return event

    assert asyncio.run(scenario()).payload["kind"] == "arrived"


def test_sql_sink_timeout_names_status_of_row(table: str) -> None:
    run = run_of(
        f"sql://pg/{table}", {}, "idle", delivery_timeout=timedelta(seconds=1)
    ).execute()
    run.resume(run.fire())

    message = str(run.error)
    assert f"table {table}" in message
    assert "'pending'" in message


def test_sql_sink_row_with_unknown_status_is_told_to_the_task(
    postgres: Postgres, table: str, capsys: pytest.CaptureFixture[str]
) -> None:
    limit = timedelta(seconds=2)
    run = run_of(f"sql://pg/{table}", {}, "idle", delivery_timeout=limit).execute()
    with postgres.connect() as connection:
        connection.execute(
            f"UPDATE {table} SET status = 'done', result = '1', completed_at = now()"
        )

    run.resume(run.fire())

    reason = "status 'done': only 'completed' and 'failed'"
    assert reason in capsys.readouterr().out
    assert isinstance(run.error, DeliveryTimeout)
    assert reason in str(run.error)


def test_sql_sink_database_restart_loses_nothing(
    postgres: Postgres, table: str, caplog: pytest.LogCaptureFixture
) -> None:
    run = run_of(f"sql://pg/{table}", {}, "idle").execute()
    delivery_id = run.xcoms["runqy_job"]["delivery_id"]
    statements = statements_of("pg")

    async def scenario() -> dict[str, Any]:
        waiting = asyncio.ensure_future(first_event(run))
        while not statements:
            await asyncio.sleep(0.02)
        await asyncio.to_thread(postgres.child.stop)
        async with timeout(20):
            while "Polling failed" not in caplog.text:
                await asyncio.sleep(0.02)
        assert not waiting.done()
        await asyncio.to_thread(postgres.child.start)
        with postgres.connect() as connection:
            connection.execute(
                f"UPDATE {table} SET status = 'completed', result = '1' WHERE id = %s",
                [delivery_id],
            )
        async with timeout(20):
            event: dict[str, Any] = await waiting
            return event

    assert run.resume(asyncio.run(scenario())).value == 1


@pytest.fixture
def polls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """For how many waits each poll was."""
    counts: list[int] = []
    poll = SqlSource.poll

    async def counted(source: SqlSource, keys: Collection[str]) -> Any:
        counts.append(len(keys))
        return await poll(source, keys)

    monkeypatch.setattr(SqlSource, "poll", counted)
    return counts


async def sessions_listening_to(postgres: Postgres, channel: str) -> int:
    """Wait until a session listens; return how many other sessions there are."""
    listen = f'LISTEN "{channel}"'
    with postgres.connect() as connection:
        async with timeout(20):
            while True:
                sessions = connection.execute(
                    "SELECT query FROM pg_stat_activity "
                    "WHERE backend_type = 'client backend' "
                    "AND pid <> pg_backend_pid()"
                ).fetchall()
                if any(listen in query for (query,) in sessions):
                    return len(sessions)
                await asyncio.sleep(0.02)


def complete_and_notify(postgres: Postgres, table: str, ids: list[str]) -> None:
    """Complete all rows, and send a notification for each."""
    with postgres.connect() as connection, connection.transaction():
        connection.execute(f"UPDATE {table} SET status = 'completed'")
        for row_id in ids:
            connection.execute("SELECT pg_notify(%s, %s)", [f"runqy_{table}", row_id])


def test_sql_sink_hundred_waits_share_select_and_notify_ends_them(
    postgres: Postgres,
    table: str,
    polls: list[int],
    connect: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AIRFLOW__RUNQY__POLL_SECONDS", "600")  # only hints end waits
    connect()
    sink = sink_from_uri(f"sql://pg/{table}").bind(load_settings("runqy_default"))
    ids = [f"row-{n}" for n in range(100)]
    with postgres.connect() as connection:
        for row_id in ids:
            connection.execute(
                f"INSERT INTO {table} (id, status) VALUES (%s, 'running')", [row_id]
            )
    statements = statements_of("pg")

    async def scenario() -> tuple[int, list[Any]]:
        waits = [
            asyncio.ensure_future(
                wait_any(sink.targets(JobRef(row_id)), deadline=time.time() + 30)
            )
            for row_id in ids
        ]
        sessions = await sessions_listening_to(postgres, f"runqy_{table}")
        async with timeout(20):
            while len(polls) < 2:  # the second one follows the LISTEN
                await asyncio.sleep(0.02)
        await asyncio.to_thread(complete_and_notify, postgres, table, ids)
        arrivals = await asyncio.gather(*waits)
        await close_waiters()
        return sessions, arrivals

    sessions, arrivals = asyncio.run(scenario())

    assert sessions == 2  # one for polls, one for LISTEN
    assert [arrival.status for arrival in arrivals] == ["completed"] * 100
    assert polls[:2] == [100, 100]
    assert len(statements) == len(polls)  # a poll is one SELECT
