"""Delivery to a table, by SQLite's driver and without SQLAlchemy."""

from __future__ import annotations

import json
import logging
import sqlite3
import sys
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from runqy_delivery import DeliveryRequest, DeliveryUndeliverable, Result, delivers
from runqy_delivery._retry import RETRY_FOR_VARIABLE
from runqy_delivery.sinks.sql import URL_VARIABLE, write

if TYPE_CHECKING:
    from pathlib import Path

    from tests.delivery.helpers import HttpServer

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


def test_write_existing_row_is_updated(database: Path) -> None:
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("INSERT INTO jobs VALUES ('d-1', 'pending', NULL, NULL)")
        connection.commit()
    handler({"sum": 3})(payload())

    assert rows(database) == [("d-1", "completed", '{"sum":3}')]


def test_write_missing_row_is_inserted(database: Path) -> None:
    handler([1, 2])(payload())

    assert rows(database) == [("d-1", "completed", "[1,2]")]


def test_write_second_final_status_is_ignored(
    database: Path, caplog: pytest.LogCaptureFixture
) -> None:
    handler(1)(payload())
    handler(2)(payload())

    assert rows(database) == [("d-1", "completed", "1")]
    assert "already has a final status" in caplog.text


def test_write_failure_has_its_message_in_the_row(database: Path) -> None:
    handler(ValueError("too dark"))(payload())

    [(_, state, output)] = rows(database)
    assert state == "failed"
    assert "too dark" in output


def test_write_failure_has_log_only_where_the_column_accepts_it(
    database: Path, caplog: pytest.LogCaptureFixture
) -> None:
    @delivers
    def handle(_payload: Any) -> None:
        logging.getLogger("task_code").warning("x" * 3000)
        raise ValueError("too dark")

    handle(payload())
    [(_, _, output)] = rows(database)
    assert json.loads(output)["log"].endswith("x" * 3000)

    with closing(sqlite3.connect(database)) as connection:
        connection.executescript(
            "DROP TABLE jobs; CREATE TABLE jobs (job text PRIMARY KEY, state text, "
            "output text CHECK (length(output) < 3000), ended timestamp)"
        )
    handle(payload())

    [(_, state, output)] = rows(database)
    assert state == "failed"
    assert json.loads(output)["error"]["traceback"]
    assert "log" not in json.loads(output)
    assert "Retrying with a shorter message" in caplog.text


def test_write_bytes_are_in_an_envelope(database: Path) -> None:
    handler(Result(b"\0\1", content_type="image/png"))(payload())

    [(_, state, output)] = rows(database)
    assert state == "completed"
    assert '"AAE="' in output


def test_write_row_is_there_before_the_notification(
    database: Path, server: HttpServer
) -> None:
    given = payload(url="sql://db/jobs#d-1", webhook_url=f"{server.url}/hook")
    handler(1)(given)

    assert rows(database) == [("d-1", "completed", "1")]
    assert server.requests[0].json()["result_url"] == "sql://db/jobs#d-1"


def test_deliver_failure_accepted_by_one_sink_raises_nothing(
    server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(URL_VARIABLE, raising=False)
    handler(ValueError("too dark"))(payload(webhook_url=f"{server.url}/hook"))

    assert server.requests[0].json()["error"]["message"] == "too dark"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (None, f"{URL_VARIABLE} is not set: put the database's URL into a vault"),
        ("oracle://u:SECRET@h/x", "No driver for oracle:// is installed"),
        ("mysql://u:SECRET@h/x", "No driver for mysql:// is installed: add pymysql"),
        ("sqlite:////missing/folder/this.db", "Writing to table jobs at sqlite://"),
        ("oracle://u:SEC/RET@SECRET@h/x", "No driver for oracle:// is installed"),
        ("mysql://u:SECRET@h:port/x", f"{URL_VARIABLE} is not a valid URL"),
        ("u:SECRET@h/x", f"{URL_VARIABLE} is not a valid URL"),
    ],
)
def test_write_unusable_database_raises_with_reason(
    url: str | None, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("sqlalchemy", "pymysql"):
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setenv("RUNQY_DELIVERY_RETRY_FOR", "0")
    monkeypatch.delenv(URL_VARIABLE, raising=False)
    if url is not None:
        monkeypatch.setenv(URL_VARIABLE, url)

    with pytest.raises(DeliveryUndeliverable) as caught:
        handler(1)(payload())
    assert message in str(caught.value)
    assert "SECRET" not in str(caught.value)


@pytest.fixture
def no_retry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail the test on a retry, although the retry budget allows one."""

    def sleep(_seconds: float) -> None:
        pytest.fail("The write was going to be retried.")

    monkeypatch.setenv(RETRY_FOR_VARIABLE, "300")
    monkeypatch.setattr(time, "sleep", sleep)


@pytest.mark.usefixtures("database", "no_retry")
@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("name", "no such table: others"),
        ("id", "no such column: others"),
        ("status", "no such column: others"),
        ("result", "no such column: others"),
        ("completed_at", "no such column: others"),
    ],
)
def test_write_missing_table_or_column_raises_at_once(field: str, message: str) -> None:
    with pytest.raises(DeliveryUndeliverable, match=message):
        write({**TABLE, field: "others"}, "d-1", "completed", b"1")


def limit_result(database: Path, max_length: int) -> None:
    """Limit the column of the result to a number of characters, as varchar does."""
    with closing(sqlite3.connect(database)) as connection:
        connection.executescript(
            "DROP TABLE jobs; CREATE TABLE jobs (job text PRIMARY KEY, state text, "
            f"output text CHECK (length(output) <= {max_length}), ended timestamp)"
        )


@pytest.mark.usefixtures("no_retry")
@pytest.mark.parametrize("insert", [True, False])
def test_write_result_rejected_by_column_is_a_failure(
    database: Path, *, insert: bool
) -> None:
    limit_result(database, 5000)
    if insert:
        with closing(sqlite3.connect(database)) as connection:
            connection.execute("INSERT INTO jobs VALUES ('d-1', 'pending', NULL, NULL)")
            connection.commit()

    assert handler("x" * 6000)(payload()) is None

    [(_, state, output)] = rows(database)
    error = json.loads(output)["error"]
    assert (state, error["type"]) == ("failed", "ResultRefused")
    assert (
        "jobs does not accept a row with 6,002 bytes in column output"
        in error["message"]
    )


@pytest.mark.usefixtures("no_retry")
@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError("too dark"), "ValueError: too dark"),
        (ValueError("a\0b\ud800"), "ValueError: ab?"),
        (ValueError("é" * 500), "ValueError: " + "é" * 28 + "..."),
        (ValueError("e" * 500), "ValueError: " + "e" * 183 + "..."),
    ],
)
def test_write_failure_too_long_for_column_is_shortened(
    database: Path, error: Exception, message: str
) -> None:
    limit_result(database, 255)

    handler(error)(payload())

    [(_, state, output)] = rows(database)
    assert (state, json.loads(output)) == ("failed", message)
    assert len(output) <= 200


@pytest.mark.usefixtures("no_retry")
def test_write_failure_rejected_by_column_raises(database: Path) -> None:
    limit_result(database, 10)

    with pytest.raises(
        DeliveryUndeliverable, match="does not accept a row with 22 bytes"
    ):
        handler(ValueError("too dark"))(payload())
    assert rows(database) == []


@pytest.mark.usefixtures("no_retry")
def test_notify_table_error_is_only_logged(
    database: Path, server: HttpServer, caplog: pytest.LogCaptureFixture
) -> None:
    limit_result(database, 10)
    request = DeliveryRequest(
        "d-1",
        sink="webhook",
        url="inbox://runqy_default/d-1",
        webhook_url=f"{server.url}/hook",
        table=TABLE,
    )
    handler(1)(request.to_fields())

    assert server.requests[0].json()["result"] == 1
    assert "Could not notify the sql: " in caplog.text


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize("field", ["name", "id", "status", "result", "completed_at"])
@pytest.mark.parametrize("name", ["a; DROP TABLE jobs", "", None, 'a"b', "a.b.c"])
def test_write_invalid_name_never_becomes_sql(field: str, name: Any) -> None:
    with pytest.raises(DeliveryUndeliverable, match="is not a valid SQL name"):
        write({**TABLE, field: name}, "d-1", "completed", b"1")


def test_write_request_without_table_raises() -> None:
    fields = DeliveryRequest("d-1", sink="sql").to_fields()
    with pytest.raises(DeliveryUndeliverable, match="has no table"):
        handler(1)(fields)
