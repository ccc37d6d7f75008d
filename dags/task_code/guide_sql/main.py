# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Task code after runqy's guide, database pattern: one UPDATE."""

from __future__ import annotations

import json
import os
from datetime import datetime, timezone
from typing import Any

import sqlalchemy
from runqy_python import load, run, task


@load
def setup() -> dict[str, Any]:
    """Make the engine once; its address is in a vault."""
    return {"engine": sqlalchemy.create_engine(os.environ["DATABASE_URL"])}


@task
def handle(payload: dict[str, Any], ctx: dict[str, Any]) -> None:
    """Write the result, or the error, to the row that is there."""
    try:
        status, result = "completed", json.dumps({"sum": sum(payload["numbers"])})
    except TypeError as error:
        status, result = "failed", str(error)
    update = sqlalchemy.text(
        "UPDATE tasks SET status = :status, result = :result, completed_at = :now "
        "WHERE id = :id"
    )
    with ctx["engine"].begin() as connection:
        connection.execute(
            update,
            {
                "status": status,
                "result": result,
                "now": datetime.now(timezone.utc).isoformat(sep=" "),
                "id": payload["task_id"],
            },
        )


if __name__ == "__main__":
    run()
