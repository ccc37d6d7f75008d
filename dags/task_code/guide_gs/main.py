# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Task code after runqy's guide: a result in Google Cloud Storage, then its URL."""

from __future__ import annotations

import json
import uuid
from typing import Any

import requests
from google.cloud import storage
from runqy_python import load, run, task


@load
def setup() -> dict[str, Any]:
    """Make the client once, with the worker's own rights."""
    return {"bucket": storage.Client().bucket("results")}


@task
def handle(payload: dict[str, Any], ctx: dict[str, Any]) -> None:
    """Store the result under a new name, and report its URL."""
    name = f"guide/{uuid.uuid4()}.json"
    result = json.dumps({"sum": sum(payload["numbers"])}).encode()
    blob = ctx["bucket"].blob(name)
    blob.upload_from_string(result, content_type="application/json")
    url = f"https://storage.googleapis.com/results/{name}"
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
