# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Task code after runqy's guide, webhook pattern: it knows nothing of Airflow."""

from __future__ import annotations

from typing import Any

import requests
from runqy_python import run, task


@task
def handle(payload: dict[str, Any]) -> None:
    """Do the work, and POST the result to the URL in the payload."""
    result = {"sum": sum(payload["numbers"])}
    response = requests.post(
        payload["webhook_url"],
        json={
            "task_id": payload["task_id"],
            "status": "completed",
            "result": result,
        },
        timeout=30,
    )
    response.raise_for_status()


if __name__ == "__main__":
    run()
