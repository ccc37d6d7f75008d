# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Task code after runqy's guide, S3 pattern: its own bucket and key, then the URL."""

from __future__ import annotations

import json
import uuid
from typing import Any

import boto3
import requests
from runqy_python import load, run, task

BUCKET = "results"


@load
def setup() -> dict[str, Any]:
    """Make the client once."""
    return {"s3": boto3.client("s3")}


@task
def handle(payload: dict[str, Any], ctx: dict[str, Any]) -> None:
    """Store the result under a new key, and report its URL."""
    key = f"guide/{uuid.uuid4()}.json"
    ctx["s3"].put_object(
        Bucket=BUCKET,
        Key=key,
        Body=json.dumps({"sum": sum(payload["numbers"])}).encode(),
        ContentType="application/json",
    )
    requests.post(
        payload["webhook_url"],
        json={
            "task_id": payload["task_id"],
            "status": "completed",
            "result_url": f"https://{BUCKET}.s3.amazonaws.com/{key}",
        },
        timeout=30,
    ).raise_for_status()


if __name__ == "__main__":
    run()
