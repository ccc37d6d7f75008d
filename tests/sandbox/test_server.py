# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The server: what the transcripts do not show."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from runqy_sandbox.asynq.keys import decode, key, task_key
from runqy_sandbox.server.enqueue_routes import MAX_BODY


def _add(client: Any, body: Any, path: str = "/queue/add") -> Any:
    content = body if isinstance(body, str | bytes) else json.dumps(body)
    return client.call("POST", path, "client", content=content)


def test_waiting_for_a_job_returns_when_it_is_done(client: Any) -> None:
    job = client.add("stored.high", kind="echo")
    start = time.monotonic()
    answer = client.http.get(f"/queue/{job}?wait=true")
    assert answer.json()["Info"]["state"] == "completed"
    assert time.monotonic() - start < 5


def test_waiting_for_a_job_that_is_deleted_is_a_timeout(client: Any) -> None:
    job = client.add("plain", kind="echo")
    answer = client.http.get(f"/queue/{job}?wait=true")
    assert (answer.status_code, answer.json()) == (
        408,
        {"errors": ["asynq: task not found"]},
    )


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        ("", 400, "EOF"),
        ("[1]", 400, "array into Go value of type map[string]json.RawMessage"),
        ({"queue": 1}, 400, "invalid queue field: json: cannot unmarshal number"),
        ({"queue": "typed", "data": [1]}, 400, "invalid data payload: json: cannot"),
        ({"queue": "typed", "data": None}, 400, "prompt is required"),
        (
            {"queue": "typed", "data": {"prompt": "p", "ratio": True}},
            400,
            "field 'ratio' has type bool, expected one of: float",
        ),
        ({"queue": "plain", "timeout": 1.5}, 400, "cannot unmarshal number 1.5"),
        (b" " * (MAX_BODY + 1), 400, "http: request body too large"),
    ],
)
def test_a_job_that_is_refused(client: Any, body: Any, status: int, error: str) -> None:
    answer = _add(client, body)
    assert answer.status_code == status
    assert error in answer.json()["errors"][0]


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        ("nope", 400, "invalid character 'o' in literal null (expecting 'u')"),
        ({"jobs": [1]}, 400, "Field validation for 'Queue' failed"),
        ({"queue": "plain", "jobs": None}, 400, "Field validation for 'Jobs' failed"),
        ({"queue": "plain", "jobs": 1}, 400, "BatchTaskRequest.jobs of type"),
        ({"queue": 1, "jobs": [1]}, 400, "BatchTaskRequest.queue of type string"),
        ({"queue": "nope", "jobs": [1]}, 404, "queue not found: nope.default"),
    ],
)
def test_a_batch_that_is_refused(
    client: Any, body: Any, status: int, error: str
) -> None:
    answer = _add(client, body, "/queue/add-batch")
    assert answer.status_code == status
    assert error in answer.json()["errors"][0]


def test_payloads_are_written_as_go_writes_them(client: Any) -> None:
    text = '{"queue": "typed", "data": {"z": "<é>", "prompt": "p", "n": 1.0}} trailing'
    job = _add(client, text).json()["info"]["id"]
    message = decode(client.redis.hget(task_key("typed.default", job), "msg"))
    assert message.payload == '{"n":1,"prompt":"p","z":"\\u003cé\\u003e"}'.encode()
    assert message.timeout == 1800


def test_a_big_batch_arrives_in_order(client: Any) -> None:
    jobs = [{"n": n} for n in range(250)]
    body = {"queue": "typed", "timeout": 7, "jobs": jobs}
    ids = _add(client, body, "/queue/add-batch").json()["task_ids"]
    assert len(set(ids)) == 250
    pending = client.redis.lrange(key("typed.default", "pending"), 0, 249)
    assert [job.decode() for job in reversed(pending)] == ids
    message = decode(client.redis.hget(task_key("typed.default", ids[-1]), "msg"))
    assert (message.payload, message.timeout) == (b'{"n": 249}', 7)


def test_a_bearer_key_and_an_api_key_are_the_same(client: Any) -> None:
    headers = {"Authorization": f"Bearer {client.sandbox.admin_key}"}
    answer = client.call("GET", "/workers/queues", None, headers=headers)
    assert answer.json() == client.call("GET", "/workers/queues").json()
    assert client.call("GET", "/workers/queues", "client").status_code == 403


def test_a_task_in_detail(client: Any) -> None:
    job = client.add("stored.high", kind="echo")
    client.wait_for(job, "completed")
    detail = client.call("GET", f"/api/queues/stored.high/tasks/{job}").json()
    assert detail["completed_at"]
    assert detail["result"] == '{"kind": "echo"}'
    assert "next_process_at" not in detail
    answer = client.call("GET", "/api/queues/stored.high/tasks/none")
    assert (answer.status_code, answer.json()["errors"]) == (
        404,
        ["asynq: task not found"],
    )
    deleted = client.call("DELETE", f"/api/queues/stored.high/tasks/{job}")
    assert deleted.json() == {"message": "task deleted", "task_id": job}
    assert not client.redis.zscore(key("stored.high", "completed"), job)


def test_queues_in_detail(client: Any) -> None:
    job = client.add("stored.low", kind="echo")
    client.wait_for(job, "completed")
    shown = client.call("GET", "/api/queues/stored.low").json()
    assert shown["completed"] == 1
    assert shown["memory_usage"] > 0
    answer = client.call("GET", "/api/queues/nope")
    assert answer.status_code == 404
    assert 'queue "nope" does not exist' in answer.json()["errors"][0]


def test_a_queue_is_paused_once(client: Any) -> None:
    path = "/api/queues/stored.low"
    assert client.call("POST", f"{path}/pause").status_code == 200
    assert client.call("GET", path).json()["paused"] is True
    again = client.call("POST", f"{path}/pause")
    assert (again.status_code, "already paused" in again.text) == (500, True)
    assert client.call("POST", f"{path}/unpause").status_code == 200
    again = client.call("POST", f"{path}/unpause")
    assert (again.status_code, "is not paused" in again.text) == (500, True)


def test_a_worker_registers(client: Any) -> None:
    def register(**body: Any) -> Any:
        return client.call("POST", "/worker/register", "worker", json=body)

    answer = register(queue="stored").json()
    assert [sub["name"] for sub in answer["sub_queues"]] == [
        "stored.high",
        "stored.low",
    ]
    assert answer["deployment"]["redis_storage"] is True
    assert answer["redis"]["addr"] == f"127.0.0.1:{client.sandbox.redis_port}"
    assert register(queue="plain.default").json()["queue"]["priority"] == 5
    assert register(queue="nope").status_code == 404
    assert register().status_code == 400


def test_an_unknown_route_is_404_whatever_the_method(client: Any) -> None:
    for method, path in (("GET", "/nope"), ("DELETE", "/health")):
        answer = client.call(method, path)
        assert (answer.status_code, answer.text) == (404, "404 page not found")


def test_after_a_flush_the_queue_is_unknown(client: Any) -> None:
    job = client.add("typed", prompt="p")
    client.redis.flushall()
    assert client.state(job) == "asynq: queue not found"


def test_without_redis_the_server_says_so(client: Any) -> None:
    client.sandbox.redis.stop()
    try:
        health = client.call("GET", "/healthz", None)
        assert (health.status_code, health.json()["status"]) == (503, "degraded")
        assert client.call("GET", "/health", None).status_code == 200
        assert client.http.get("/queue/some-id").status_code == 500
        assert client.call("GET", "/api/queues/plain.default").status_code == 500
        assert _add(client, {"queue": "plain"}).status_code == 400
        body = {"queue": "plain", "jobs": [1, 2]}
        batch = _add(client, body, "/queue/add-batch").json()
        assert (batch["enqueued"], batch["failed"]) == (0, 2)
        assert len(batch["errors"]) == 2
    finally:
        client.sandbox.redis.start()
    assert client.call("GET", "/healthz", None).status_code == 200
