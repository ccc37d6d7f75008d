# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""A job that waits until it may go on, and then does what its payload says."""

from __future__ import annotations

import os
import time
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import requests
from runqy_python import run, task

from runqy_delivery import delivers

FOLDER = Path(os.environ["FAULTS_FOLDER"])

#: Seconds for which a job waits to be let go on.
TIMEOUT = 240


@task
def handle(payload: dict[str, Any]) -> Any:
    """Wait, and deliver unless it is to fail."""
    backend = FOLDER / payload["run"]
    backend.mkdir(exist_ok=True)
    end = time.monotonic() + TIMEOUT
    while not (backend / "go").exists() and time.monotonic() < end:
        time.sleep(0.05)
    mode = payload["mode"]
    if mode == "silent":
        return None
    if mode == "crash":
        crashed = backend / f"crashed-{payload['index']}"
        if not crashed.exists():
            crashed.touch()
            os._exit(1)
    if mode == "thrice":
        return thrice(payload)
    return deliver(payload)


@delivers
def deliver(payload: dict[str, Any]) -> dict[str, Any]:
    """Return what the task is to return."""
    return {"index": payload["index"]}


def thrice(payload: dict[str, Any]) -> None:
    """Deliver the same twice at once, and something else as soon as one is taken."""

    def post(result: Any) -> None:
        body = {"task_id": payload["task_id"], "result": {"index": result}}
        requests.post(payload["webhook_url"], json=body, timeout=30)

    with ThreadPoolExecutor() as pool:
        same = [pool.submit(post, payload["index"]) for _ in range(2)]
        wait(same, return_when=FIRST_COMPLETED)
        pool.submit(post, "another")


if __name__ == "__main__":
    run()
