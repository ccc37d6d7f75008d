"""Polls of a table in memory: what they return, and what the source remembers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

import pytest

from runqy_provider.errors import NoAccess, NotThere, RunqyError, SinkUnavailable
from runqy_provider.sinks.sql import sink as sql_sink
from runqy_provider.sinks.sql.sink import SqlSource
from runqy_provider.sinks.sql.table import Row, SqlTable
from runqy_provider.waiters.source import Arrival

if TYPE_CHECKING:
    from collections.abc import Collection

UUID = "00ab10ef-0000-5000-8000-00000000000a"


class Table:
    """A table in memory."""

    conn_id = "pg"
    location = "table t"

    def __init__(self, *rows: Row) -> None:
        self.rows = rows

    def poll(self, ids: Collection[str]) -> list[Row]:
        """Return what a database returns that ignores upper and lower case."""
        wanted = {row_id.lower() for row_id in ids}
        return [row for row in self.rows if row.id.lower() in wanted]


def source_of(table: Table, **arguments: Any) -> SqlSource:
    return SqlSource(cast("SqlTable", table), "any", str, **arguments)


def result_of(source: SqlSource, row_id: str) -> Any:
    return asyncio.run(source.poll([row_id])).get(row_id)


def test_sql_source_row_without_wait_is_forgotten() -> None:
    table = Table(Row("a", "pending", 0.0), Row("b", "pending", 0.0))
    source = source_of(table, forget_after=0.0)
    for row_id in ("a", "b"):  # each is polled once
        assert result_of(source, row_id) is None
    table.rows = ()

    # A row that the source remembers would be reported as deleted.
    assert result_of(source, "a") is None


@pytest.mark.parametrize(
    ("requested", "stored"), [(UUID, UUID.upper()), (UUID.upper(), UUID)]
)
def test_sql_source_uuid_in_capitals_is_found(requested: str, stored: str) -> None:
    source = source_of(Table(Row(stored, "completed", 1.0)))

    assert result_of(source, requested) == Arrival("completed", requested, 1.0)


def test_sql_source_other_id_stays_unchanged() -> None:
    assert result_of(source_of(Table(Row("JOB", "completed", 1.0))), "job") is None


def test_sql_source_known_row_deleted_is_reported_at_once() -> None:
    table = Table(Row("r", "pending", 0.0))
    source = source_of(table)
    assert result_of(source, "r") is None
    table.rows = ()

    assert isinstance(result_of(source, "r"), NotThere)


@pytest.mark.parametrize("is_inserted", [True, False])
def test_sql_source_unknown_row_is_deleted_only_if_inserted(
    is_inserted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = source_of(Table(), is_inserted=is_inserted)
    assert result_of(source, "r") is None  # one poll does not prove it
    monkeypatch.setattr(sql_sink, "MISSING_GRACE", 0.0)

    assert isinstance(result_of(source, "r"), NotThere) is is_inserted


@pytest.mark.parametrize("error", [NotThere("gone"), NoAccess("refused")])
def test_sql_source_table_error_ends_its_waits(error: RunqyError) -> None:
    class Refusing(Table):
        def poll(self, ids: Collection[str]) -> list[Row]:
            raise error

    assert result_of(source_of(Refusing()), "r") is error


def test_sql_source_database_unavailable_is_polled_again() -> None:
    class RetryableServerError(Table):
        def poll(self, ids: Collection[str]) -> list[Row]:
            raise SinkUnavailable("unavailable")

    with pytest.raises(SinkUnavailable):
        result_of(source_of(RetryableServerError()), "r")
