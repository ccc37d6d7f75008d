"""Delivery into a table: SQLite's own driver, with no SQLAlchemy about."""

from __future__ import annotations

import json
import sqlite3
import sys
import time
import types
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from runqy_delivery import DeliveryRequest, DeliveryUndeliverable, Result, delivers
from runqy_delivery._retry import RETRY_FOR_VARIABLE
from runqy_delivery.sinks.sql import URL_VARIABLE, write

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Server

TABLE = {
    "name": "jobs",
    "id": "job",
    "status": "state",
    "result": "output",
    "completed_at": "ended",
}


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    path = tmp_path / "results.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(
            "CREATE TABLE jobs (job text PRIMARY KEY, state text, output text, "
            "ended timestamp)"
        )
    monkeypatch.setenv(URL_VARIABLE, f"sqlite:///{path}")
    return path


def rows(database: Path) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute("SELECT job, state, output FROM jobs").fetchall()


def handler(result: Any) -> Any:
    @delivers
    def handle(_payload: Any) -> Any:
        if isinstance(result, Exception):
            raise result
        return result

    return handle


def payload(**fields: Any) -> dict[str, Any]:
    return DeliveryRequest("d-1", sink="sql", table=TABLE, **fields).to_fields()


def test_a_row_that_is_there_is_brought_to_its_end(database: Path) -> None:
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("INSERT INTO jobs VALUES ('d-1', 'pending', NULL, NULL)")
        connection.commit()
    handler({"sum": 3})(payload())

    assert rows(database) == [("d-1", "completed", '{"sum":3}')]


def test_a_row_that_is_not_there_is_inserted(database: Path) -> None:
    handler([1, 2])(payload())

    assert rows(database) == [("d-1", "completed", "[1,2]")]


def test_the_first_end_stays(database: Path, caplog: pytest.LogCaptureFixture) -> None:
    handler(1)(payload())
    handler(2)(payload())

    assert rows(database) == [("d-1", "completed", "1")]
    assert "has a final status already" in caplog.text


def test_a_failure_has_its_words_in_the_row(database: Path) -> None:
    handler(ValueError("too dark"))(payload())

    [(_, state, output)] = rows(database)
    assert state == "failed"
    assert "too dark" in output


def test_bytes_stand_in_an_envelope(database: Path) -> None:
    handler(Result(b"\0\1", content_type="image/png"))(payload())

    [(_, state, output)] = rows(database)
    assert state == "completed"
    assert '"AAE="' in output


def test_the_bell_is_rung_once_the_row_is_there(database: Path, server: Server) -> None:
    given = payload(url="sql://db/jobs#d-1", webhook_url=f"{server.url}/bell")
    handler(1)(given)

    assert rows(database) == [("d-1", "completed", "1")]
    assert server.seen[0].json()["result_url"] == "sql://db/jobs#d-1"


def test_a_failure_that_one_place_takes_is_delivered(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(URL_VARIABLE, raising=False)
    handler(ValueError("too dark"))(payload(webhook_url=f"{server.url}/bell"))

    assert server.seen[0].json()["error"]["message"] == "too dark"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (None, f"{URL_VARIABLE} is not set: put the database's URL into a vault"),
        ("oracle://u:SECRET@h/x", "No driver for oracle:// is installed"),
        ("mysql://u:SECRET@h/x", "No driver for mysql:// is installed: add pymysql"),
        ("sqlite:////nobody/has/this.db", "Writing to table jobs at sqlite://"),
        ("oracle://u:SEC/RET@SECRET@h/x", "No driver for oracle:// is installed"),
        ("mysql://u:SECRET@h:port/x", f"{URL_VARIABLE} cannot be read as a URL"),
        ("u:SECRET@h/x", f"{URL_VARIABLE} cannot be read as a URL"),
    ],
)
def test_a_database_that_cannot_be_used_raises_with_words(
    url: str | None, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("sqlalchemy", "pymysql"):
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setenv("RUNQY_DELIVERY_RETRY_FOR", "0")
    monkeypatch.delenv(URL_VARIABLE, raising=False)
    if url is not None:
        monkeypatch.setenv(URL_VARIABLE, url)

    with pytest.raises(DeliveryUndeliverable) as caught:
        handler(1)(payload())
    assert words in str(caught.value)
    assert "SECRET" not in str(caught.value)


@pytest.fixture
def once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody pause before a second try, though there is plenty of time for one."""

    def sleep(_seconds: float) -> None:
        pytest.fail("It was going to be tried again.")

    monkeypatch.setenv(RETRY_FOR_VARIABLE, "300")
    monkeypatch.setattr(time, "sleep", sleep)


@pytest.mark.usefixtures("database", "once")
@pytest.mark.parametrize(
    ("field", "words"),
    [
        ("name", "no such table: others"),
        ("id", "no such column: others"),
        ("status", "no such column: others"),
        ("result", "no such column: others"),
        ("completed_at", "no such column: others"),
    ],
)
def test_a_table_or_column_that_is_not_there_raises_at_once(
    field: str, words: str
) -> None:
    with pytest.raises(DeliveryUndeliverable, match=words):
        write({**TABLE, field: "others"}, "d-1", "completed", b"1")


@pytest.mark.usefixtures("once")
def test_mysqls_column_that_is_not_there_raises_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A stand-in for pymysql, which calls that operational: no MySQL is about."""
    driver = types.ModuleType("pymysql")
    driver.Error = sqlite3.Error  # type: ignore[attr-defined]
    driver.DataError = sqlite3.DataError  # type: ignore[attr-defined]
    driver.IntegrityError = sqlite3.IntegrityError  # type: ignore[attr-defined]
    driver.InterfaceError = sqlite3.InterfaceError  # type: ignore[attr-defined]
    driver.OperationalError = sqlite3.OperationalError  # type: ignore[attr-defined]
    given: dict[str, Any] = {}

    def connect(**arguments: Any) -> None:
        given.update(arguments)
        raise sqlite3.OperationalError(1054, "Unknown column 'others'")

    driver.connect = connect  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    monkeypatch.setitem(sys.modules, "pymysql", driver)
    monkeypatch.setenv(URL_VARIABLE, "mysql://u:p/w@x%21@h/results")

    with pytest.raises(DeliveryUndeliverable, match="Unknown column"):
        write(TABLE, "d-1", "completed", b"1")
    expected = {
        "host": "h",
        "port": 3306,
        "user": "u",
        "password": "p/w@x!",
        "database": "results",
    }
    assert expected == given


def limit(database: Path, longest: int) -> None:
    """Let the column take so many characters, as a varchar would."""
    with closing(sqlite3.connect(database)) as connection:
        connection.executescript(
            "DROP TABLE jobs; CREATE TABLE jobs (job text PRIMARY KEY, state text, "
            f"output text CHECK (length(output) <= {longest}), ended timestamp)"
        )


@pytest.mark.usefixtures("once")
@pytest.mark.parametrize("insert", [True, False])
def test_a_result_that_the_column_does_not_take_is_a_failure(
    database: Path, *, insert: bool
) -> None:
    limit(database, 5000)
    if insert:
        with closing(sqlite3.connect(database)) as connection:
            connection.execute("INSERT INTO jobs VALUES ('d-1', 'pending', NULL, NULL)")
            connection.commit()

    assert handler("x" * 6000)(payload()) is None

    [(_, state, output)] = rows(database)
    error = json.loads(output)["error"]
    assert (state, error["type"]) == ("failed", "ResultRefused")
    assert "jobs takes no row with 6,002 bytes in column output" in error["message"]


@pytest.mark.usefixtures("once")
@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ValueError("too dark"), "ValueError: too dark"),
        (ValueError("a\0b\ud800"), "ValueError: ab?"),
        (ValueError("é" * 500), "ValueError: " + "é" * 28 + "..."),
        (ValueError("e" * 500), "ValueError: " + "e" * 183 + "..."),
    ],
)
def test_a_failure_that_does_not_fit_whole_stands_in_few_words(
    database: Path, error: Exception, words: str
) -> None:
    limit(database, 255)

    handler(error)(payload())

    [(_, state, output)] = rows(database)
    assert (state, json.loads(output)) == ("failed", words)
    assert len(output) <= 200


@pytest.mark.usefixtures("once")
def test_a_failure_that_does_not_fit_at_all_raises_with_words(database: Path) -> None:
    limit(database, 10)

    with pytest.raises(DeliveryUndeliverable, match="takes no row with 22 bytes"):
        handler(ValueError("too dark"))(payload())
    assert rows(database) == []


@pytest.mark.usefixtures("once")
def test_news_that_the_column_does_not_take_do_not_undo_the_delivery(
    database: Path, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    limit(database, 10)
    request = DeliveryRequest(
        "d-1",
        sink="webhook",
        url="inbox://runqy_default/d-1",
        webhook_url=f"{server.url}/bell",
        table=TABLE,
    )
    handler(1)(request.to_fields())

    assert server.seen[0].json()["result"] == 1
    assert "The sql was not told: " in caplog.text


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize("field", ["name", "id", "status", "result", "completed_at"])
@pytest.mark.parametrize("name", ["a; DROP TABLE jobs", "", None, 'a"b', "a.b.c"])
def test_a_name_that_is_none_never_becomes_sql(field: str, name: Any) -> None:
    with pytest.raises(DeliveryUndeliverable, match="no name in SQL"):
        write({**TABLE, field: name}, "d-1", "completed", b"1")


def test_a_request_without_a_table_raises() -> None:
    fields = DeliveryRequest("d-1", sink="sql").to_fields()
    with pytest.raises(DeliveryUndeliverable, match="has no table"):
        handler(1)(fields)
