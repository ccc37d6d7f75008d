"""Results in a table of a real MariaDB, through Airflow's MySQL hook and PyMySQL."""

from __future__ import annotations

import asyncio
import time
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from devtools.servers.mariadb import MariaDB, running_mariadb
from runqy_provider.errors import (
    JobFailed,
    Misconfigured,
    NoAccess,
    NotThere,
    SinkUnavailable,
    TooLarge,
)
from runqy_provider.hooks.result import RunqyResultHook
from runqy_provider.models import JobRef, is_reference
from runqy_provider.python_compat import timeout
from runqy_provider.settings import load_settings
from runqy_provider.sinks.registry import sink_from_uri
from runqy_provider.sinks.sql.table import SqlTable
from runqy_provider.waiters.race import wait_any
from runqy_provider.waiters.waiter import close_waiters
from runqy_sandbox.process.net import free_port
from tests.integration.sql.helpers import run_of
from tests.support.caches import dispose_engines
from tests.support.harness import outcome_of
from tests.support.stack import Stack, make_stack

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.stack import Gate

pytestmark = pytest.mark.usefixtures("connect", "no_settling")

#: Types of the columns of the id, the result and the time.
TYPES = {
    "docs": ("varchar(36)", "longtext", "timestamp NULL"),
    "json": ("uuid", "json", "datetime"),
}


@pytest.fixture(scope="module")
def mariadb() -> Iterator[MariaDB]:
    with running_mariadb() as mariadb:
        yield mariadb


@pytest.fixture(scope="module")
def stack(
    mariadb: MariaDB, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    environment = {
        "RUNQY_DELIVERY_DATABASE_URL": mariadb.url,
        "RUNQY_DELIVERY_RETRY_FOR": "5",
    }
    with make_stack(tmp_path_factory.mktemp("task_code"), environment) as stack:
        yield stack


@pytest.fixture(autouse=True)
def pg_connection(mariadb: MariaDB, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Airflow's connection to that database, in place of PostgreSQL's."""
    monkeypatch.setenv("AIRFLOW_CONN_MARIA", mariadb.airflow_url)
    yield
    dispose_engines()


def make_table(mariadb: MariaDB, kind: str) -> str:
    name = f"t_{uuid.uuid4().hex}"
    id_type, result_type, time_type = TYPES[kind]
    mariadb.execute(
        f"CREATE TABLE {name} (id {id_type} PRIMARY KEY, status varchar(16) NOT NULL, "
        f"result {result_type}, completed_at {time_type})"
    )
    return name


@pytest.fixture
def table(mariadb: MariaDB) -> str:
    """A table of the test's own, as in docs/how-to/sinks/sql.md."""
    return make_table(mariadb, "docs")


@pytest.mark.parametrize("value", [{"a": [1, None]}, None, "ü€😀", "7", 0])
@pytest.mark.parametrize("kind", TYPES)
def test_mariadb_value_is_returned_and_its_time_is_utc(
    kind: str, value: Any, mariadb: MariaDB
) -> None:
    run = run_of(f"sql://maria/{make_table(mariadb, kind)}", {"value": value})

    assert outcome_of(run) == value
    assert abs(run.xcoms["runqy_delivery"]["delivered_at"] - time.time()) < 120


def test_mariadb_failure_by_helper_has_traceback(table: str) -> None:
    with pytest.raises(JobFailed, match="ValueError: too dark") as caught:
        outcome_of(run_of(f"sql://maria/{table}", {"error": "too dark"}))
    assert "raise ValueError" in str(caught.value.traceback)


def test_mariadb_without_inserted_row_helper_inserts_it(
    mariadb: MariaDB, table: str, gate: Gate
) -> None:
    run = run_of(f"sql://maria/{table}?insert=false", {"value": 5, **gate.closed})
    run.execute()
    assert mariadb.execute(f"SELECT count(*) FROM {table}") == [(0,)]
    gate.open()

    assert run.resume(run.fire()).value == 5


def test_mariadb_first_final_status_stays(
    mariadb: MariaDB, table: str, gate: Gate
) -> None:
    run = run_of(f"sql://maria/{table}", {"value": 1, **gate.closed}).execute()
    delivery_id = run.xcoms["runqy_job"]["delivery_id"]
    mariadb.execute(
        f"UPDATE {table} SET status = 'completed', result = '2' WHERE id = %s",
        delivery_id,
    )
    gate.open()

    assert run.resume(run.fire()).value == 2


def test_mariadb_ten_megabytes_are_returned(table: str) -> None:
    image = outcome_of(run_of(f"sql://maria/{table}", {"bytes": 10_000_000}))

    assert is_reference(image)
    assert image["size"] == 10_000_000
    with RunqyResultHook().read(image).stream() as stream:
        assert stream.read(4) == b"xxxx"


def test_mariadb_larger_than_a_packet_fails_with_advice(table: str) -> None:
    with pytest.raises(JobFailed, match="max_allowed_packet"):
        outcome_of(run_of(f"sql://maria/{table}", {"bytes": 20_000_000}))


def test_mariadb_blob_column_returns_bytes(mariadb: MariaDB, table: str) -> None:
    mariadb.execute(f"ALTER TABLE {table} MODIFY result longblob")
    run = run_of(f"sql://maria/{table}", {}, "idle").execute()
    mariadb.execute(
        f"UPDATE {table} SET status = 'completed', result = %s", b"\x00\xff"
    )

    image = run.resume(run.fire()).value
    assert RunqyResultHook().read(image).bytes() == b"\x00\xff"


def test_mariadb_size_is_known_before_a_result_is_read(
    mariadb: MariaDB, table: str
) -> None:
    mariadb.execute(f"INSERT INTO {table} VALUES ('r', 'completed', '[1]', NULL)")
    rows = SqlTable("maria", table)

    rows.check_size("r", 3)
    with pytest.raises(TooLarge, match="3 bytes"):
        rows.check_size("r", 2)


BAD = [
    ("sql://maria/nothing_here", NotThere, "(?s)nothing_here.*Create it"),
    ("sql://maria/{table}?id=job", NotThere, "job"),
    ("sql://maria/{table}?result=missing", NotThere, "missing"),
    ("sql://maria/numbered", Misconfigured, "text or a UUID"),
    ("sql://wrong_password/{table}", NoAccess, "wrong_password"),
    ("sql://reader/{table}", NoAccess, "denied"),
    ("sql://no_database/{table}", NotThere, "no_database"),
    ("sql://unavailable/{table}", SinkUnavailable, "unavailable"),
]


@pytest.mark.parametrize(("sink", "error", "message"), BAD, ids=[row[0] for row in BAD])
def test_mariadb_invalid_input_enqueues_nothing(
    sink: str,
    error: type[Exception],
    message: str,
    table: str,
    mariadb: MariaDB,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mariadb.execute(
        "CREATE TABLE IF NOT EXISTS numbered (id integer, status text, "
        "result text, completed_at timestamp)"
    )
    mariadb.execute("CREATE OR REPLACE USER reader@'127.0.0.1' IDENTIFIED BY 'r'")
    mariadb.execute("GRANT SELECT ON results.numbered TO reader@'127.0.0.1'")
    url = mariadb.airflow_url
    for name, other in {
        "WRONG_PASSWORD": url.replace("not-a-secret", "wrong"),
        "READER": url.replace("runqy:not-a-secret", "reader:r"),
        "NO_DATABASE": url.replace("/results", "/no_database"),
        "UNAVAILABLE": url.replace(str(mariadb.port), str(free_port())),
    }.items():
        monkeypatch.setenv(f"AIRFLOW_CONN_{name}", other)
    run = run_of(sink.format(table=table), {"value": 1})

    with pytest.raises(error, match=message) as caught:
        outcome_of(run)
    assert "not-a-secret" not in str(caught.value)
    assert "runqy_job" not in run.xcoms


def test_mariadb_lock_times_out(
    mariadb: MariaDB, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_MARIA", f"{mariadb.airflow_url}&read_timeout=1")
    rows = SqlTable("maria", table)
    with mariadb.connect() as locker, locker.cursor() as cursor:
        cursor.execute(f"LOCK TABLE {table} WRITE")
        began = time.monotonic()
        with pytest.raises(SinkUnavailable, match="timed out"):
            rows.read("r")
        assert time.monotonic() - began < 10


def test_mariadb_deleted_row_ends_the_wait(mariadb: MariaDB, table: str) -> None:
    run = run_of(f"sql://maria/{table}", {}, "idle").execute()
    mariadb.execute(f"DELETE FROM {table}")

    run.resume(run.fire())
    assert isinstance(run.error, NotThere)


def test_mariadb_insert_repeated_leaves_one_row(mariadb: MariaDB, table: str) -> None:
    rows = SqlTable("maria", table)
    rows.insert("r")
    mariadb.execute(f"UPDATE {table} SET status = 'x'")
    rows.insert("r")

    assert rows.status_of("r") == "x"


def test_mariadb_restart_loses_nothing(
    mariadb: MariaDB, table: str, caplog: pytest.LogCaptureFixture
) -> None:
    job = JobRef(f"d-{table}", f"sql://maria/{table}", "job", "idle.default")
    sink = sink_from_uri(job.sink).bind(load_settings("runqy_default"))
    sink.prepare(job.delivery_id)

    async def scenario() -> Any:
        deadline = time.time() + 60
        waiting = asyncio.ensure_future(wait_any(sink.targets(job), deadline=deadline))
        await asyncio.to_thread(mariadb.child.stop)
        async with timeout(30):
            while "Polling failed" not in caplog.text:
                await asyncio.sleep(0.02)
        assert not waiting.done()
        await asyncio.to_thread(mariadb.child.start)
        mariadb.execute(f"UPDATE {table} SET status = 'completed', result = '1'")
        arrival = await waiting
        await close_waiters()
        return arrival

    assert asyncio.run(scenario()).status == "completed"
