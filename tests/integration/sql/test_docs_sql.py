"""The SQL of the docs, run by a real PostgreSQL, and used by a real job."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest

from tests.integration.sql.helpers import run_of
from tests.support.doc_blocks import all_blocks
from tests.support.harness import outcome_of

if TYPE_CHECKING:
    from devtools.servers.postgres import Postgres

pytestmark = pytest.mark.usefixtures("connect")


def test_docs_table_and_trigger_take_a_result_and_notify(postgres: Postgres) -> None:
    schema = f"s_{uuid.uuid4().hex}"
    with postgres.connect() as connection:
        connection.execute(f"CREATE SCHEMA {schema}")
        connection.execute(f"SET search_path TO {schema}")
        for block in all_blocks("sql"):
            connection.execute(block.code)
        connection.execute("LISTEN runqy_tasks")
        outcome = outcome_of(run_of(f"sql://pg/{schema}.tasks", {"value": [1]}))
        row = connection.execute("SELECT id, status, result FROM tasks").fetchone()
        notified = next(connection.notifies(timeout=30, stop_after=1))

    assert outcome == [1]
    assert row is not None
    assert row[1:] == ("completed", "[1]")
    assert notified.payload == row[0]
