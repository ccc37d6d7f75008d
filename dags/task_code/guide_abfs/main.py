# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Task code after runqy's guide: a result in Azure Blob Storage, then its URL."""

from __future__ import annotations

import json
import os
import uuid
from typing import Any

import requests
from azure.storage.blob import BlobServiceClient, ContentSettings
from runqy_python import load, run, task


@load
def setup() -> dict[str, Any]:
    """Make the client once; the address of the account is in a vault."""
    address = os.environ["AZURE_STORAGE_CONNECTION_STRING"]
    return {"service": BlobServiceClient.from_connection_string(address)}


@task
def handle(payload: dict[str, Any], ctx: dict[str, Any]) -> None:
    """Store the result under a new name, and report its URL."""
    name = f"guide/{uuid.uuid4()}.json"
    result = json.dumps({"sum": sum(payload["numbers"])}).encode()
    blob = ctx["service"].get_blob_client("results", name)
    kind = ContentSettings(content_type="application/json")
    blob.upload_blob(result, content_settings=kind)
    url = blob.url
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
