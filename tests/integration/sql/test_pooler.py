"""With psycopg 3 behind a transaction pooler no statement is prepared on the server."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlencode

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from runqy_provider.errors import SinkUnavailable
from runqy_provider.sinks.sql.engine import sql_engine
from runqy_provider.sinks.sql.table import sql_errors

if TYPE_CHECKING:
    from devtools.servers.postgres import Postgres

PREPARED = text("SELECT count(*) FROM pg_prepared_statements")


def _prepared(conn_id: str) -> int:
    """Return how many prepared statements the server has after equal queries."""
    with sql_engine(conn_id).connect() as connection:
        for number in range(12):
            connection.execute(text("SELECT :n"), {"n": number})
        return int(connection.execute(PREPARED).scalar_one())


def _connect(postgres: Postgres, monkeypatch: pytest.MonkeyPatch, **extra: str) -> None:
    query = urlencode({"sqlalchemy_scheme": "postgresql+psycopg", **extra})
    monkeypatch.setenv("AIRFLOW_CONN_POOLED", f"{postgres.url}?{query}")


def test_sql_engine_prepares_no_statement_on_server(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    _connect(postgres, monkeypatch)

    assert sql_engine("pooled").driver == "psycopg"
    assert _prepared("pooled") == 0


@pytest.mark.parametrize("code", ["26000", "42P05"])
def test_sql_errors_pooler_error_is_unavailable(code: str) -> None:
    class InvalidSqlStatementName(Exception):
        sqlstate = code

    with (
        pytest.raises(SinkUnavailable),
        sql_errors("table tasks", "pg", "query"),
    ):
        raise DBAPIError("SELECT", {}, InvalidSqlStatementName("no such statement"))
