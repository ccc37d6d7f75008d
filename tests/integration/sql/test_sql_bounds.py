"""A database that does not answer: locked, stopped, or unreachable."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from runqy_provider.errors import RunqyError, SinkUnavailable
from runqy_provider.models import JobRef
from runqy_provider.python_compat import timeout
from runqy_provider.settings import load_settings
from runqy_provider.sinks.registry import sink_from_uri
from runqy_provider.sinks.sql import sink as sql_sink
from runqy_provider.sinks.sql.sink import SqlSource
from runqy_provider.sinks.sql.table import SqlTable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from devtools.servers.postgres import Postgres

BACKENDS = (
    "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' "
    "AND pid <> pg_backend_pid()"
)


def error_of(operation: Callable[[], Any]) -> tuple[str, str, float]:
    """Return the type and message of an error, and the seconds that it took."""
    began = time.monotonic()
    try:
        value = operation()
    except RunqyError as error:
        kind, message = type(error).__name__, str(error)
    else:
        kind, message = "", str(value)
    return kind, message, time.monotonic() - began


@contextmanager
def frozen(postgres: Postgres) -> Iterator[None]:
    """Stop the server processes of our connections; TCP still acknowledges."""
    with postgres.connect() as connection:
        pids = [pid for (pid,) in connection.execute(BACKENDS).fetchall()]
    assert pids
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


@pytest.mark.usefixtures("connect")
def test_sql_table_lock_or_silent_server_times_out(
    postgres: Postgres, table: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = tmp_path / "results.db"
    with sqlite3.connect(database) as connection:
        connection.execute("CREATE TABLE t (id, status, result, completed_at)")
    monkeypatch.setenv(
        "AIRFLOW_CONN_LITE", json.dumps({"conn_type": "sqlite", "host": str(database)})
    )
    sink = sink_from_uri(f"sql://pg/{table}")
    rows = SqlTable("pg", table)
    settings = load_settings("runqy_default")
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        postgres.connect() as locker,
        sqlite3.connect(database, isolation_level=None) as writer,
        ThreadPoolExecutor(6) as threads,
    ):
        url = f"postgresql://u:p@127.0.0.1:{silent.getsockname()[1]}/postgres"
        monkeypatch.setenv("AIRFLOW_CONN_SILENT", url)
        writer.execute("BEGIN EXCLUSIVE")
        with locker.transaction():
            locker.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
            futures = [
                threads.submit(error_of, operation)
                for operation in (
                    lambda: list(rows.poll(["r"])),
                    lambda: rows.insert("r"),
                    lambda: sink.bind(settings).open(f"{sink.uri}#r"),
                    lambda: sink.bind(settings).describe_timeout(JobRef("r")),
                    lambda: SqlTable("silent", table).read("r"),
                    lambda: SqlTable("lite", "t").read("r"),
                )
            ]
            outcomes = [future.result(60) for future in futures]

    assert all("did not answer within 15 s" in message for _, message, _ in outcomes)
    assert max(seconds for _, _, seconds in outcomes) < 20
    kinds = [kind for kind, _, _ in outcomes]
    assert kinds == [*["SinkUnavailable"] * 3, "", *["SinkUnavailable"] * 2]
    # The server itself cancelled them: none of our statements is left there.
    assert all("canceling statement" in message for _, message, _ in outcomes[:4])


def test_sql_table_server_stops_responding_times_out(
    postgres: Postgres, table: str
) -> None:
    rows = SqlTable("pg", table)
    assert rows.read("r") is None
    with frozen(postgres):
        kind, message, seconds = error_of(lambda: rows.read("r", 1.0))

    assert kind == "SinkUnavailable"
    assert "did not answer within 1 s" in message
    assert seconds < 10
    assert rows.read("r") is None


def test_sql_source_listening_to_silent_server_ends(
    postgres: Postgres, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql_sink, "PING_INTERVAL", 0.2)
    monkeypatch.setattr(sql_sink, "TIMEOUT", 1.0)
    source = SqlSource(SqlTable("pg", table), "any", str)

    async def scenario() -> None:
        hints = source.hints()
        async with timeout(20):
            assert await anext(hints) is None
            with frozen(postgres):
                await anext(hints)

    with pytest.raises(SinkUnavailable, match="did not answer within 1 s"):
        asyncio.run(scenario())


def test_sql_engine_broken_idle_connection_is_replaced(
    postgres: Postgres, table: str
) -> None:
    rows = SqlTable("pg", table)
    rows.insert("r")
    with postgres.connect() as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
            "WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )

    assert rows.status_of("r") == "pending"
