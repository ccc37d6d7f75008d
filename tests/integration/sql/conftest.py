"""A real PostgreSQL, and a stack whose task code writes to it."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest

from devtools.servers.postgres import Postgres, running_postgres
from tests.support.caches import dispose_engines
from tests.support.stack import Stack, example_code, make_stack

if TYPE_CHECKING:
    from collections.abc import Iterator

TABLE = """
CREATE TABLE {name} (
    id {id_type} PRIMARY KEY,
    status varchar(16) NOT NULL,
    result {result_type},
    completed_at timestamptz
)
"""


@pytest.fixture(scope="package")
def postgres() -> Iterator[Postgres]:
    with running_postgres() as postgres:
        yield postgres


@pytest.fixture(scope="package")
def stack(
    postgres: Postgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    with postgres.connect() as connection:
        connection.execute(
            TABLE.format(name="tasks", id_type="uuid", result_type="jsonb")
        )
    environment = {
        "RUNQY_DELIVERY_DATABASE_URL": postgres.url,
        "RUNQY_DELIVERY_RETRY_FOR": "5",
        "DATABASE_URL": postgres.url,
    }
    folder = tmp_path_factory.mktemp("task_code")
    with make_stack(folder, environment, example_code("guide_sql")) as stack:
        yield stack


@pytest.fixture(autouse=True)
def pg_connection(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Airflow's connection to that database."""
    monkeypatch.setenv("AIRFLOW_CONN_PG", postgres.url)
    yield
    dispose_engines()


@pytest.fixture
def table(postgres: Postgres) -> str:
    """A table of the test's own, as in docs/how-to/sinks/sql.md."""
    name = f"t_{uuid.uuid4().hex}"
    with postgres.connect() as connection:
        connection.execute(TABLE.format(name=name, id_type="text", result_type="text"))
    return name
