# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Fixtures: sandboxes, each with a client."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from runqy_sandbox.sandbox import Sandbox
from tests.sandbox.client import Client

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

#: Task code whose behaviour is chosen by the ``kind`` in the payload.
TASK_CODE = """
import json, os, pathlib, sys, time
from runqy_python import RetryableError, run, task

@task
def handle(payload):
    kind = payload["kind"]
    if "log" in payload:
        with open(payload["log"], "a") as log:
            log.write(payload.get("name", kind) + chr(10))
    if kind == "echo":
        return payload
    if kind == "fail":
        raise ValueError("boom")
    if kind == "retry":
        raise RetryableError("transient")
    if kind == "crash":
        os._exit(3)
    if kind == "crash once":
        flag = pathlib.Path(payload["flag"])
        if not flag.exists():
            flag.touch()
            os._exit(3)
        return "survived"
    if kind == "gate":
        while not os.path.exists(payload["gate"]):
            time.sleep(0.01)
        return os.getpid()
    if kind == "long":
        return "x" * (11 * 1024 * 1024)
    if kind == "null":
        return None
    if kind == "noise":
        os.write(1, b"not JSON" + b"\\n")
        return "done"
    if kind == "environment":
        return {name: os.environ.get(name) for name in payload["names"]}
    if kind == "s3":
        import boto3
        boto3.client("s3").put_object(Bucket="results", Key="k", Body=b"v")
        return "done"

run()
"""


@pytest.fixture(scope="session")
def task_code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("task-code")
    (directory / "main.py").write_text(TASK_CODE)
    return directory


@pytest.fixture(scope="session")
def queues(task_code: Path) -> dict[str, Any]:
    code = str(task_code)
    return {
        "queues": {
            "plain": {"priority": 5, "task_code": code},
            "stored": {
                "sub_queues": [
                    {"name": "high", "priority": 10},
                    {"name": "low", "priority": 2},
                ],
                "deployment": {"redis_storage": True, "task_code": code},
            },
            "typed": {
                "input": [
                    {"name": "prompt", "type": ["string"]},
                    {"name": "ratio", "type": "float", "required": False},
                ]
            },
        }
    }


@pytest.fixture(scope="module")
def start(queues: dict[str, Any]) -> Iterator[Callable[..., Client]]:
    """Starts a sandbox with given options, until the end of the module."""
    with contextlib.ExitStack() as stack:

        def start_one(**options: Any) -> Client:
            options = {"queues": queues, "buckets": (), **options}
            client = Client(stack.enter_context(Sandbox(**options)))
            stack.callback(client.close)
            return client

        yield start_one


@pytest.fixture(scope="module")
def client(start: Callable[..., Client]) -> Client:
    """A client of a sandbox with quick retries and short leases."""
    return start(
        retry_unit=0.01,
        lease_seconds=2.0,
        buckets=("results",),
        redis_appendonly=True,
    )
