"""Airflow's connection to the database: its extras, and a failed reload."""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from runqy_provider.airflow_compat import AirflowNotFoundException
from runqy_provider.caching import TtlCache
from runqy_provider.errors import SinkError, SinkUnavailable
from runqy_provider.python_compat import timeout
from runqy_provider.sinks.sql import engine
from runqy_provider.sinks.sql.sink import SqlSource
from runqy_provider.sinks.sql.table import SqlTable

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

    from devtools.servers.postgres import Postgres


async def first_hint(table: SqlTable, channel: str = "any") -> str | None:
    hints = SqlSource(table, channel, str).hints()
    async with timeout(20):
        hint = await anext(hints)
    await hints.aclose()  # type: ignore[attr-defined] # it is a generator
    return hint


@pytest.fixture
def connection(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Give Airflow the connection ``pg`` with extras."""

    def connection(**extra: Any) -> None:
        fields = {
            "conn_type": "postgres",
            "host": "127.0.0.1",
            "port": postgres.port,
            "login": "runqy",
            "password": "not-a-secret",
            "schema": "postgres",
            "extra": extra,
        }
        monkeypatch.setenv("AIRFLOW_CONN_PG", json.dumps(fields))

    return connection


DRIVERS = pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])


@DRIVERS
def test_sql_engine_extras_reach_both_drivers(
    driver: str, postgres: Postgres, table: str, connection: Any
) -> None:
    with postgres.connect() as admin:
        admin.execute(f"CREATE SCHEMA s_{table}")
        admin.execute(f"ALTER TABLE {table} SET SCHEMA s_{table}")
    connection(
        options=f"-c search_path=s_{table}",
        application_name="ours",
        cursor="dictcursor",
        sqlalchemy_scheme=f"postgresql+{driver}",
    )
    rows = SqlTable("pg", table)
    rows.insert("r")
    assert rows.status_of("r") == "pending"

    async def scenario() -> int:
        hints = SqlSource(rows, "any", str).hints()
        async with timeout(20):
            await anext(hints)
        with postgres.connect() as admin:
            row = admin.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'ours'"
            ).fetchone()
        await hints.aclose()  # type: ignore[attr-defined] # it is a generator
        assert row is not None
        return int(row[0])

    assert asyncio.run(scenario()) == 2


@DRIVERS
@pytest.mark.parametrize("encoding", ["LATIN1", "WIN1252", "SQL_ASCII"])
@pytest.mark.parametrize("result_type", ["text", "jsonb"])
def test_sql_table_database_of_other_encoding_is_read(
    driver: str,
    encoding: str,
    result_type: str,
    postgres: Postgres,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    encoded, name = postgres.with_database(encoding), f"t_{uuid.uuid4().hex}"
    with encoded.connect() as admin:
        admin.execute(
            f"CREATE TABLE {name} (id text, status text, result {result_type}, "
            "completed_at timestamptz)"
        )
    url = f"{encoded.url}?sqlalchemy_scheme=postgresql%2B{driver}"
    monkeypatch.setenv("AIRFLOW_CONN_ENCODED", url)
    rows = SqlTable("encoded", name)
    rows.insert("ü")
    with encoded.connect() as admin:
        admin.execute(f"UPDATE {name} SET result = '\"ü\"'")

    row = rows.read("ü")
    assert row is not None
    assert (row.id, row.result) == ("ü", "ü" if row.is_parsed else '"ü"')
    assert row.is_parsed == (result_type == "jsonb")
    assert asyncio.run(first_hint(rows)) is None


@DRIVERS
def test_sql_engine_client_encoding_of_the_connection_is_kept(
    driver: str, postgres: Postgres, connection: Any
) -> None:
    connection(client_encoding="latin1", sqlalchemy_scheme=f"postgresql+{driver}")

    with engine.sql_engine("pg").connect() as connected:
        encoding = connected.exec_driver_sql("SHOW client_encoding").scalar_one()
    assert encoding.lower() == "latin1"


@DRIVERS
def test_sql_engine_sslmode_is_kept(driver: str, table: str, connection: Any) -> None:
    """The test's server has no TLS: if it is required, the connection fails."""
    connection(sslmode="require", sqlalchemy_scheme=f"postgresql+{driver}")

    with pytest.raises(SinkUnavailable, match="SSL"):
        SqlTable("pg", table).read("r")
    with pytest.raises(SinkUnavailable, match="SSL"):
        asyncio.run(first_hint(SqlTable("pg", table)))


def test_sql_source_channel_with_capitals_is_listened_to(
    postgres: Postgres, table: str
) -> None:
    source = SqlSource(SqlTable("pg", table), "runqy_Tasks", str)

    async def scenario() -> str | None:
        hints = source.hints()
        async with timeout(20):
            assert await anext(hints) is None
            with postgres.connect() as connection:
                connection.execute("SELECT pg_notify('runqy_Tasks', 'r')")
            hint = await anext(hints)
        await hints.aclose()  # type: ignore[attr-defined] # it is a generator
        return hint

    assert asyncio.run(scenario()) == "r"


def test_sql_engine_connection_not_found_keeps_old_engine(
    postgres: Postgres,
    table: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    rows = SqlTable("pg", table)
    rows.insert("r")
    cache: TtlCache[Engine] = TtlCache(0.0, retry_after=60.0)
    monkeypatch.setattr(engine, "ENGINES", cache)
    old = engine.sql_engine("pg")
    monkeypatch.delenv("AIRFLOW_CONN_PG")

    for _ in range(3):
        assert rows.status_of("r") == "pending"
    assert engine.sql_engine("pg") is old
    assert old.pool.checkedin() == 1  # type: ignore[attr-defined] # it is a queue
    assert caplog.text.count("could not be loaded again (AirflowNotFound") == 1

    monkeypatch.setenv("AIRFLOW_CONN_PG", postgres.url)
    retried: TtlCache[Engine] = TtlCache(0.0, retry_after=60.0)
    retried.get("The engine of connection 'pg'", lambda _: old)
    monkeypatch.setattr(engine, "ENGINES", retried)
    assert rows.status_of("r") == "pending"
    assert engine.sql_engine("pg") is not old
    assert old.pool.checkedin() == 0  # type: ignore[attr-defined] # it is a queue


def test_sql_engine_unknown_connection_is_an_error(table: str) -> None:
    with pytest.raises(AirflowNotFoundException, match="missing"):
        SqlTable("missing", table).read("r")


def test_sql_table_two_inserts_of_one_id_leave_one_row(
    postgres: Postgres, table: str
) -> None:
    rows = SqlTable("pg", table)

    async def scenario() -> None:
        with postgres.connect() as other, postgres.connect() as watcher:
            with other.transaction():
                other.execute(f"INSERT INTO {table} (id, status) VALUES ('r', 'x')")
                inserting = asyncio.ensure_future(asyncio.to_thread(rows.insert, "r"))
                async with timeout(10):
                    while not watcher.execute(
                        "SELECT 1 FROM pg_locks WHERE NOT granted"
                    ).fetchone():
                        assert not inserting.done()
                        await asyncio.sleep(0.02)
            async with timeout(10):
                await inserting

    asyncio.run(scenario())
    assert rows.status_of("r") == "x"


def test_sql_table_insert_refused_is_an_error(postgres: Postgres, table: str) -> None:
    with postgres.connect() as connection:
        connection.execute(f"ALTER TABLE {table} ADD CHECK (status <> 'pending')")

    with pytest.raises(SinkError, match="check constraint"):
        SqlTable("pg", table).insert("r")
