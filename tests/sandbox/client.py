# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""A client of a sandbox, with access to its Redis."""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING, Any, TypeVar

import httpx
from redis import Redis

from runqy_sandbox.asynq.keys import (
    QUEUES,
    decode,
    key,
    new_message,
    reverse_key,
    task_key,
)
from runqy_sandbox.asynq.lua import ENQUEUE

if TYPE_CHECKING:
    from collections.abc import Callable

    from runqy_sandbox.sandbox import Sandbox

TIMEOUT = 20.0

T = TypeVar("T")


def wait_until(condition: Callable[[], T], what: str = "the condition") -> T:
    """Poll until a condition returns a true value, and return that value."""
    deadline = time.monotonic() + TIMEOUT
    while not (value := condition()):
        assert time.monotonic() < deadline, f"timeout while waiting for {what}"
        time.sleep(0.02)
    return value


class Client:
    """Sends requests to the server of a sandbox, and reads and writes its Redis."""

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
        """Send a request with the API key of a role."""
        headers = options.pop("headers", {})
        if role:
            headers["X-API-Key"] = getattr(self.sandbox, f"{role}_key")
        return self.http.request(method, path, headers=headers, **options)

    def add(self, queue: str, **payload: Any) -> str:
        """Enqueue a job through the server and return its id."""
        body = {"queue": queue, "timeout": 300, "data": payload}
        response = self.call("POST", "/queue/add", "client", json=body)
        assert response.status_code == httpx.codes.OK, response.text
        return str(response.json()["info"]["id"])

    def push(self, queue: str, payload: bytes, *, max_retry: int = 0) -> str:
        """Enqueue a job in Redis, with any payload and number of retries."""
        job_id = str(uuid.uuid4())
        message = new_message(job_id, queue, payload, max_retry=max_retry)
        keys = [
            QUEUES,
            task_key(queue, job_id),
            reverse_key(job_id),
            key(queue, "pending"),
        ]
        msg = message.SerializeToString()
        arguments = (queue, job_id, msg, time.time_ns())
        self.redis.eval(ENQUEUE, len(keys), *keys, *arguments)
        return job_id

    def state(self, job_id: str) -> str:
        """Return the state of a job, or the server's error message."""
        body = self.http.get(f"/queue/{job_id}").json()
        return str(body["Info"]["state"] if "Info" in body else body["errors"][0])

    def wait_for(self, job_id: str, *states: str) -> str:
        """Wait until a job is in one of the states, and return that state."""

        def reached() -> str | None:
            state = self.state(job_id)
            return state if state in states else None

        return str(wait_until(reached, f"{job_id} in {states}"))

    def message(self, queue: str, job_id: str) -> Any:
        """Return the ``TaskMessage`` of a job."""
        msg = self.redis.hget(task_key(queue, job_id), "msg")
        assert isinstance(msg, bytes)
        return decode(msg)

    def task(self, queue: str, job_id: str) -> dict[str, str]:
        """Return the fields of a job's hash, without ``msg``."""
        return {
            name: value.decode()
            for name, value in self.hash(task_key(queue, job_id)).items()
            if name != "msg"
        }

    def hash(self, name: str) -> dict[str, bytes]:
        """Return the fields of a hash in Redis."""
        fields: dict[Any, Any] = self.redis.hgetall(name)
        return {field.decode(): value for field, value in fields.items()}

    def score(self, name: str, member: str) -> float | None:
        """Return the score of a member of a sorted set in Redis."""
        score: Any = self.redis.zscore(name, member)
        return None if score is None else float(score)
