"""The SQL of the docs, run by a real PostgreSQL."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from tests.support.doc_blocks import all_blocks

if TYPE_CHECKING:
    from devtools.servers.postgres import Postgres


def test_docs_table_and_trigger_notify_of_updates(postgres: Postgres) -> None:
    schema, row_id = f"s_{uuid.uuid4().hex}", str(uuid.uuid4())
    with postgres.connect() as connection:
        connection.execute(f"CREATE SCHEMA {schema}")
        connection.execute(f"SET search_path TO {schema}")
        for block in all_blocks("sql"):
            connection.execute(block.code)
        connection.execute("LISTEN runqy_tasks")
        connection.execute("INSERT INTO tasks VALUES (%s, 'pending')", [row_id])
        connection.execute(
            "UPDATE tasks SET status = 'completed' WHERE id = %s", [row_id]
        )
        notified = next(connection.notifies(timeout=30, stop_after=1))

    assert notified.payload == row_id
