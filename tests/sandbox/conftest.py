# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Sandboxes for the tests of the sandbox, and a small client for each."""

from __future__ import annotations

import contextlib
import time
import uuid
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from redis import Redis

from runqy_sandbox.asynq.keys import decode, key, new_message, reverse_key, task_key
from runqy_sandbox.asynq.lua import ENQUEUE
from runqy_sandbox.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

DEADLINE = 20.0

#: Task code that does what the payload says.
HANDLER = """
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
    if kind == "not a number":
        return float("nan")
    if kind == "nothing":
        return None
    if kind == "noise":
        os.write(1, b"this is no JSON" + b"\\n")
        return "heard"
    if kind == "environment":
        return {name: os.environ.get(name) for name in payload["names"]}
    if kind == "s3":
        import boto3
        boto3.client("s3").put_object(Bucket="results", Key="k", Body=b"v")
        return "put"

run()
"""


def wait_until(condition: Callable[[], Any], what: str = "it") -> Any:
    """Ask until the answer is true; fail when it takes too long."""
    deadline = time.monotonic() + DEADLINE
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"{what} did not come to pass in time"
        time.sleep(0.02)
    return answer


class Client:
    """Speaks to a sandbox as its users do, and looks into its Redis."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.redis = Redis.from_url(sandbox.redis_url)
        self.http = httpx.Client(base_url=sandbox.server_url, timeout=40)

    def close(self) -> None:
        self.redis.close()
        self.http.close()

    def call(
        self, method: str, path: str, role: str | None = "admin", **options: Any
    ) -> httpx.Response:
        headers = options.pop("headers", {})
        if role:
            headers["X-API-Key"] = getattr(self.sandbox, f"{role}_key")
        return self.http.request(method, path, headers=headers, **options)

    def add(self, queue: str, **payload: Any) -> str:
        body = {"queue": queue, "timeout": 300, "data": payload}
        answer = self.call("POST", "/queue/add", "client", json=body)
        assert answer.status_code == httpx.codes.OK, answer.text
        return answer.json()["info"]["id"]

    def push(self, queue: str, payload: bytes, *, max_retry: int = 0) -> str:
        """Enqueue in Redis, where the number of retries can be chosen."""
        job_id = str(uuid.uuid4())
        message = new_message(job_id, queue, payload, max_retry=max_retry)
        keys = ["asynq:queues", task_key(queue, job_id), reverse_key(job_id)]
        keys.append(key(queue, "pending"))
        msg = message.SerializeToString()
        self.redis.eval(ENQUEUE, 4, *keys, queue, job_id, msg, time.time_ns())
        return job_id

    def state(self, job_id: str) -> str:
        answer = self.http.get(f"/queue/{job_id}")
        body = answer.json()
        return body["Info"]["state"] if "Info" in body else body["errors"][0]

    def wait_for(self, job_id: str, *states: str) -> str:
        return wait_until(
            lambda: (state := self.state(job_id)) in states and state,
            f"{job_id} in {states}",
        )

    def task(self, queue: str, job_id: str) -> dict[str, Any]:
        found = self.redis.hgetall(task_key(queue, job_id))
        values = {k.decode(): v for k, v in found.items()}
        values["msg"] = decode(values["msg"])
        return {k: v.decode() if k != "msg" else v for k, v in values.items()}


@pytest.fixture(scope="session")
def task_code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("task-code")
    (directory / "main.py").write_text(HANDLER)
    return directory


@pytest.fixture(scope="session")
def queues(task_code: Path) -> dict[str, Any]:
    code = str(task_code)
    subs = [{"name": "high", "priority": 10}, {"name": "low", "priority": 2}]
    stored = {"redis_storage": True, "task_code": code}
    fields = [
        {"name": "prompt", "type": ["string"]},
        {"name": "ratio", "type": "float", "required": False},
    ]
    return {
        "queues": {
            "plain": {"priority": 5, "task_code": code},
            "stored": {"sub_queues": subs, "deployment": stored},
            "typed": {"input": fields},
        }
    }


@pytest.fixture(scope="module")
def start(queues: dict[str, Any]) -> Iterator[Any]:
    """Start a sandbox and return its client; everything ends with the module."""
    with contextlib.ExitStack() as stack:

        def start_one(**options: Any) -> Client:
            options = {"queues": queues, "buckets": (), **options}
            client = Client(stack.enter_context(Sandbox(**options)))
            stack.callback(client.close)
            return client

        yield start_one


@pytest.fixture(scope="module")
def client(start: Any) -> Client:
    """A sandbox with quick retries and short leases, shared by a module's tests."""
    return start(
        retry_unit=0.01,
        lease_seconds=2.0,
        buckets=("results",),
        redis_appendonly=True,
    )


@pytest.fixture(scope="session")
def make_client() -> type[Client]:
    return Client
