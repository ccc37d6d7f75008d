# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Task code after runqy's guide: a result in a shared folder, then its URL."""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path
from typing import Any

import requests
from runqy_python import run, task


@task
def handle(payload: dict[str, Any]) -> None:
    """Store the result under a new name, and report its URL."""
    name = f"guide/{uuid.uuid4()}.json"
    result = json.dumps({"sum": sum(payload["numbers"])}).encode()
    path = Path(os.environ["RESULTS_FOLDER"], name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(result)
    url = path.as_uri()
    requests.post(
        payload["webhook_url"],
        json={
            "task_id": payload["task_id"],
            "status": "completed",
            "result_url": url,
        },
        timeout=30,
    ).raise_for_status()


if __name__ == "__main__":
    run()
