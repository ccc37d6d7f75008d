"""Delivery into a table of a real MariaDB, with and without SQLAlchemy.

Skipped in the isolated environment, which has no driver.
"""

from __future__ import annotations

import json
import sys
import time
import uuid
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from runqy_delivery import DeliveryRequest, DeliveryUndeliverable, delivers
from runqy_delivery._retry import RETRY_FOR_VARIABLE
from runqy_delivery.sinks.sql import URL_VARIABLE, write

pytest.importorskip("pymysql")
if TYPE_CHECKING:
    from collections.abc import Iterator

    from devtools.servers.mariadb import MariaDB

#: The scheme of the URL, and the modules that are not installed.
DRIVERS = {
    "sqlalchemy, driver named": ("mysql+pymysql", ()),
    "sqlalchemy without its driver": ("mysql", ("MySQLdb",)),
    "pymysql": ("mysql", ("sqlalchemy",)),
}


@pytest.fixture(scope="module")
def mariadb() -> Iterator[MariaDB]:
    from devtools.servers.mariadb import running_mariadb

    with running_mariadb() as mariadb:
        yield mariadb


@pytest.fixture(params=DRIVERS)
def scheme(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    scheme, missing = DRIVERS[request.param]
    for module in missing:
        monkeypatch.setitem(sys.modules, module, None)
    return scheme


@pytest.fixture
def url(mariadb: MariaDB, scheme: str, monkeypatch: pytest.MonkeyPatch) -> str:
    url = mariadb.url.replace("mysql", scheme)
    monkeypatch.setenv(URL_VARIABLE, url)
    # A retry makes the test fail by its timeout.
    monkeypatch.setenv(RETRY_FOR_VARIABLE, "300")
    return url


class Table:
    def __init__(self, mariadb: MariaDB, result_type: str) -> None:
        self.name = f"t_{uuid.uuid4().hex}"
        self.run = mariadb.execute
        self.run(
            f"CREATE TABLE {self.name} (id varchar(36) PRIMARY KEY, status text, "
            f"result {result_type}, completed_at timestamp NULL) CHARACTER SET utf8mb4"
        )

    def rows(self) -> list[tuple[Any, ...]]:
        return self.run(f"SELECT id, status, result FROM {self.name}")

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


@pytest.mark.usefixtures("url")
@pytest.mark.parametrize("is_inserted", [True, False])
def test_write_mariadb_row_has_result_and_time(
    mariadb: MariaDB, *, is_inserted: bool
) -> None:
    table = Table(mariadb, "longtext")
    if is_inserted:
        table.run(f"INSERT INTO {table.name} (id, status) VALUES ('d-1', 'pending')")
    table.deliver({"text": "ü€😀"})
    table.deliver("another")  # the first final status is kept

    [(delivery_id, status, text)] = table.rows()
    assert (delivery_id, status, json.loads(text)) == (
        "d-1",
        "completed",
        {"text": "ü€😀"},
    )
    [(seconds,)] = table.run(f"SELECT unix_timestamp(completed_at) FROM {table.name}")
    assert abs(seconds - time.time()) < 120


@pytest.mark.usefixtures("url")
def test_write_mariadb_datetime_is_utc(mariadb: MariaDB) -> None:
    table = Table(mariadb, "longtext")
    table.run(f"ALTER TABLE {table.name} MODIFY completed_at datetime")
    table.deliver(1)

    [(seconds,)] = table.run(
        f"SELECT timestampdiff(SECOND, completed_at, utc_timestamp()) FROM {table.name}"
    )
    assert 0 <= seconds < 120


@pytest.mark.usefixtures("url")
@pytest.mark.parametrize(
    ("result_type", "result", "message"),
    [
        ("varchar(3000)", "x" * 3000, "Data too long"),
        ("text", "x" * 70_000, "Data too long"),
        ("json", json.loads("[" * 40 + "]" * 40), "CONSTRAINT"),
        ("text CHECK (result <> '7')", 7, "CONSTRAINT"),
        ("longtext", "x" * 17_000_000, "max_allowed_packet"),
        ("longtext", '"' * 9_000_000, "max_allowed_packet"),
    ],
    ids=["varchar", "text", "json", "check", "packet", "escaped packet"],
)
def test_write_mariadb_rejected_result_is_a_failure(
    mariadb: MariaDB, result_type: str, result: Any, message: str
) -> None:
    table = Table(mariadb, result_type)
    table.deliver(result)

    [(_, status, text)] = table.rows()
    assert status == "failed"
    assert message in text


@pytest.mark.usefixtures("url")
@pytest.mark.parametrize("field", ["name", "id", "status", "result", "completed_at"])
def test_write_mariadb_missing_table_or_column_raises_at_once(
    field: str, mariadb: MariaDB
) -> None:
    names = {**Table(mariadb, "text").names, field: "others"}

    with pytest.raises(DeliveryUndeliverable, match="others"):
        write(names, "d-1", "completed", b"1")


@pytest.mark.parametrize("escaped", [True, False])
@pytest.mark.parametrize("password", ["p/SECRET@x", "a:b#SECRET[", "50%"])
def test_write_mariadb_any_password_connects_and_is_never_shown(
    mariadb: MariaDB,
    scheme: str,
    password: str,
    monkeypatch: pytest.MonkeyPatch,
    *,
    escaped: bool,
) -> None:
    table = Table(mariadb, "text")
    user = f"u_{uuid.uuid4().hex[:20]}"
    table.run(f"CREATE USER {user}@'127.0.0.1' IDENTIFIED BY %s", password)
    table.run(f"GRANT ALL ON {table.name} TO {user}@'127.0.0.1'")
    given = quote(password, safe="") if escaped else password
    location = f"127.0.0.1:{mariadb.port}/results"
    monkeypatch.setenv(URL_VARIABLE, f"{scheme}://{user}:{given}@{location}")
    table.deliver(1)
    assert table.rows() == [("d-1", "completed", "1")]

    monkeypatch.setenv(URL_VARIABLE, f"{scheme}://{user}:{given}wrong@{location}")
    monkeypatch.setenv(RETRY_FOR_VARIABLE, "0")
    with pytest.raises(DeliveryUndeliverable, match="Access denied") as caught:
        table.deliver(1)
    assert f"at {scheme}://{location}" in str(caught.value)
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize(
    "options", ["connect_timeout=soon", "color=SECRET", "ssl_ca=/missing/ca.pem"]
)
def test_write_mariadb_invalid_options_raise_without_a_secret(
    mariadb: MariaDB, scheme: str, options: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = Table(mariadb, "text")
    url = mariadb.url.replace("mysql", scheme)
    monkeypatch.setenv(URL_VARIABLE, f"{url}?{options}")
    monkeypatch.setenv(RETRY_FOR_VARIABLE, "0")

    with pytest.raises(DeliveryUndeliverable) as caught:
        table.deliver(1)
    assert "not-a-secret" not in str(caught.value)
    assert "SECRET" not in str(caught.value)


def test_write_mariadb_options_reach_the_driver(
    mariadb: MariaDB, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = Table(mariadb, "text")
    url = mariadb.url.replace("mysql", scheme)
    monkeypatch.setenv(URL_VARIABLE, f"{url}?connect_timeout=5&program_name=ours")
    table.deliver(1)

    assert table.rows() == [("d-1", "completed", "1")]
