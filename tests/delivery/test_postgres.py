"""Delivery into a table of a real PostgreSQL, through each of its drivers.

Skipped in the isolated environment, which has no driver.
"""

from __future__ import annotations

import json
import random
import string
import sys
import threading
import uuid
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from runqy_delivery import DeliveryRequest, DeliveryUndeliverable, delivers
from runqy_delivery._retry import RETRY_FOR_VARIABLE
from runqy_delivery.sinks.sql import URL_VARIABLE, write

psycopg = pytest.importorskip("psycopg")
if TYPE_CHECKING:
    from collections.abc import Iterator

    from devtools.servers.postgres import Postgres

#: The scheme of the URL, and the modules that are not installed, by driver.
DRIVERS = {
    "sqlalchemy and psycopg2": ("postgresql", ()),
    "sqlalchemy and psycopg": ("postgresql+psycopg", ()),
    "psycopg": ("postgresql", ("sqlalchemy",)),
    "psycopg2": ("postgres", ("sqlalchemy", "psycopg")),
}


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    from devtools.servers.postgres import running_postgres

    with running_postgres() as postgres:
        yield postgres


@pytest.fixture(params=DRIVERS)
def scheme(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    scheme, missing = DRIVERS[request.param]
    for module in missing:
        monkeypatch.setitem(sys.modules, module, None)
    return scheme


@pytest.fixture
def url(postgres: Postgres, scheme: str, monkeypatch: pytest.MonkeyPatch) -> str:
    url = postgres.url.replace("postgresql", scheme)
    monkeypatch.setenv(URL_VARIABLE, url)
    # A retry makes the test fail by its timeout.
    monkeypatch.setenv(RETRY_FOR_VARIABLE, "300")
    return url


@pytest.fixture(params=["LATIN1", "WIN1252", "SQL_ASCII"])
def encoded(
    request: pytest.FixtureRequest,
    postgres: Postgres,
    scheme: str,
    monkeypatch: pytest.MonkeyPatch,
) -> Postgres:
    """A database whose encoding is not UTF-8."""
    encoded = postgres.with_database(request.param)
    url = encoded.url.replace("postgresql", scheme)
    monkeypatch.setenv(URL_VARIABLE, url)
    monkeypatch.setenv(RETRY_FOR_VARIABLE, "300")
    return encoded


class Table:
    def __init__(self, postgres: Postgres, result_type: str) -> None:
        self.name = f"t_{uuid.uuid4().hex}"
        self._postgres = postgres
        self.run(
            f"CREATE TABLE {self.name} (id text PRIMARY KEY, status text, "
            f"result {result_type}, completed_at timestamptz)"
        )

    def run(self, statement: str) -> Any:
        with self._postgres.connect() as connection:
            return connection.execute(statement)

    def rows(self) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = self.run(
            f"SELECT id, status, result::text FROM {self.name}"
        ).fetchall()
        return rows

    @property
    def names(self) -> dict[str, str]:
        columns = ("id", "status", "result", "completed_at")
        return {"name": self.name, **{column: column for column in columns}}

    def deliver(self, returned: Any) -> None:
        @delivers
        def handle(_payload: Any) -> Any:
            if isinstance(returned, Exception):
                raise returned
            return returned

        request = DeliveryRequest("d-1", sink="sql", table=self.names)
        assert handle(request.to_fields()) is None


@pytest.mark.parametrize("result_type", ["text", "jsonb"])
def test_write_database_of_other_encoding_has_result(
    encoded: Postgres, result_type: str
) -> None:
    table = Table(encoded, result_type)
    # SQL_ASCII cannot convert the escapes of other characters for jsonb.
    is_ascii = encoded.database == "sql_ascii" and result_type == "jsonb"
    table.deliver("u" if is_ascii else "ü")

    [(_, status, text)] = table.rows()
    assert (status, json.loads(text)) == ("completed", "u" if is_ascii else "ü")


def test_write_character_unknown_to_encoding_is_a_failure(encoded: Postgres) -> None:
    table = Table(encoded, "jsonb")
    table.deliver("😀")

    [(_, status, text)] = table.rows()
    reason = "conversion" if encoded.database == "sql_ascii" else "does not accept"
    assert status == "failed"
    assert reason in text


@pytest.mark.usefixtures("url")
@pytest.mark.parametrize(
    ("result_type", "result", "message"),
    [
        ("varchar(3000)", "x" * 3000, "value too long for type character varying"),
        ("varchar(255)", "x" * 300, "value too long for type character varying"),
        ("jsonb", {"a": "\0"}, "unsupported Unicode escape sequence"),
    ],
)
def test_write_result_rejected_by_column_is_a_failure(
    postgres: Postgres, result_type: str, result: Any, message: str
) -> None:
    table = Table(postgres, result_type)
    table.deliver(result)

    [(_, status, text)] = table.rows()
    assert status == "failed"
    assert message in text


@pytest.mark.usefixtures("url")
def test_write_result_over_index_limit_is_a_failure(
    postgres: Postgres,
) -> None:
    """The driver reports an index row that is too long as an operational error."""
    table = Table(postgres, "text")
    table.run(f"CREATE INDEX ON {table.name} (result)")
    # Random letters, which PostgreSQL cannot compress.
    table.deliver("".join(random.choices(string.ascii_letters, k=20_000)))

    [(_, status, text)] = table.rows()
    assert status == "failed"
    assert "index row" in text


@pytest.mark.usefixtures("url")
def test_write_failure_with_characters_unknown_to_jsonb_is_shortened(
    postgres: Postgres,
) -> None:
    table = Table(postgres, "jsonb")
    table.deliver(ValueError("a\0b\ud800"))

    [(_, status, text)] = table.rows()
    assert (status, json.loads(text)) == ("failed", "ValueError: ab?")


@pytest.mark.usefixtures("url")
@pytest.mark.parametrize("result_type", ["varchar(10)", "integer"])
def test_write_failure_rejected_by_column_raises(
    postgres: Postgres, result_type: str
) -> None:
    table = Table(postgres, result_type)

    with pytest.raises(
        DeliveryUndeliverable, match="does not accept a row with 22 bytes"
    ):
        table.deliver(ValueError("too dark"))


@pytest.mark.usefixtures("url")
def test_write_missing_table_raises_at_once(postgres: Postgres) -> None:
    names = {**Table(postgres, "text").names, "name": "others"}

    with pytest.raises(DeliveryUndeliverable, match='"others" does not exist'):
        write(names, "d-1", "completed", b"1")


@pytest.mark.usefixtures("url")
def test_write_row_inserted_meanwhile_is_updated(
    postgres: Postgres,
) -> None:
    table = Table(postgres, "text")
    with postgres.connect() as connection, postgres.connect() as observer:
        connection.autocommit = False
        connection.execute(f"INSERT INTO {table.name} VALUES ('d-1', 'pending')")
        writing = threading.Thread(target=table.deliver, args=(1,))
        writing.start()
        while not observer.execute(
            "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' "
            f"AND query LIKE 'INSERT INTO {table.name}%'"
        ).fetchone():
            assert writing.is_alive()  # pytest's timeout limits this loop
        connection.commit()
        writing.join(30)

    assert table.rows() == [("d-1", "completed", "1")]


@pytest.mark.parametrize("escaped", [True, False])
@pytest.mark.parametrize("password", ["p/SECRET@x", "7/SECRET", "a:b#SECRET[", "50%"])
def test_write_any_password_connects_and_is_never_shown(
    postgres: Postgres,
    scheme: str,
    password: str,
    monkeypatch: pytest.MonkeyPatch,
    *,
    escaped: bool,
) -> None:
    table = Table(postgres, "text")
    table.run(f"CREATE ROLE {table.name} LOGIN PASSWORD '{password}'")
    table.run(f"GRANT ALL ON {table.name} TO {table.name}")
    given = quote(password, safe="") if escaped else password
    location = f"127.0.0.1:{postgres.port}/postgres"
    monkeypatch.setenv(URL_VARIABLE, f"{scheme}://{table.name}:{given}@{location}")
    table.deliver(1)
    assert table.rows() == [("d-1", "completed", "1")]

    monkeypatch.setenv(URL_VARIABLE, f"{scheme}://{table.name}:{given}wrong@{location}")
    monkeypatch.setenv(RETRY_FOR_VARIABLE, "0")
    with pytest.raises(DeliveryUndeliverable, match="failed for user") as caught:
        table.deliver(1)
    assert f"at {scheme}://{location}" in str(caught.value)
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize(
    "options", ["connect_timeout=soon", "color=1", "password=%zzSECRET"]
)
def test_write_invalid_options_raise_without_a_secret(
    postgres: Postgres, scheme: str, options: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = Table(postgres, "text")
    url = postgres.url.replace("postgresql", scheme)
    monkeypatch.setenv(URL_VARIABLE, f"{url}?{options}")
    monkeypatch.setenv(RETRY_FOR_VARIABLE, "0")

    with pytest.raises(DeliveryUndeliverable) as caught:
        table.deliver(1)
    assert "not-a-secret" not in str(caught.value)
    assert "SECRET" not in str(caught.value)
