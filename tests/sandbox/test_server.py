# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Tests of the server, beyond the recorded exchanges of ``tests/conformance``."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from runqy_sandbox.asynq.keys import key
from runqy_sandbox.server.enqueue_routes import MAX_BODY

if TYPE_CHECKING:
    import httpx

    from tests.sandbox.client import Client


def _add(client: Client, body: Any, path: str = "/queue/add") -> httpx.Response:
    content = body if isinstance(body, str | bytes) else json.dumps(body)
    return client.call("POST", path, "client", content=content)


def test_status_with_wait_returns_when_job_completes(client: Client) -> None:
    job = client.add("stored.high", kind="echo")
    start = time.monotonic()
    response = client.http.get(f"/queue/{job}?wait=true")
    assert response.json()["Info"]["state"] == "completed"
    assert time.monotonic() - start < 5


def test_status_with_wait_job_deleted_returns_408(client: Client) -> None:
    job = client.add("plain", kind="echo")
    response = client.http.get(f"/queue/{job}?wait=true")
    assert (response.status_code, response.json()) == (
        408,
        {"errors": ["asynq: task not found"]},
    )


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        ("", 400, "EOF"),
        ("[1]", 400, "json: cannot unmarshal array"),
        ({"queue": 1}, 400, "invalid queue field: json: cannot unmarshal number"),
        ({"queue": "typed", "data": [1]}, 400, "invalid data payload: json: cannot"),
        ({"queue": "typed", "data": None}, 400, "prompt is required"),
        (
            {"queue": "typed", "data": {"prompt": "p", "ratio": True}},
            400,
            "field 'ratio' has type bool, expected one of: float",
        ),
        ({"queue": "plain", "timeout": 1.5}, 400, "cannot unmarshal number: 1.5"),
        (b" " * (MAX_BODY + 1), 400, "http: request body too large"),
    ],
)
def test_add_invalid_body_returns_error(
    client: Client, body: Any, status: int, error: str
) -> None:
    response = _add(client, body)
    assert response.status_code == status
    assert error in response.json()["errors"][0]


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        ("nope", 400, "invalid character"),
        ({"jobs": [1]}, 400, "queue and jobs are required"),
        ({"queue": "plain", "jobs": None}, 400, "queue and jobs are required"),
        ({"queue": "plain", "jobs": 1}, 400, "cannot unmarshal number"),
        ({"queue": 1, "jobs": [1]}, 400, "invalid queue field"),
        ({"queue": "nope", "jobs": [1]}, 404, "queue not found: nope.default"),
    ],
)
def test_add_batch_invalid_body_returns_error(
    client: Client, body: Any, status: int, error: str
) -> None:
    response = _add(client, body, "/queue/add-batch")
    assert response.status_code == status
    assert error in response.json()["errors"][0]


def test_add_payload_is_encoded_as_in_go(client: Client) -> None:
    text = '{"queue": "typed", "data": {"z": "<é>", "prompt": "p", "n": 1.0}} trailing'
    job = _add(client, text).json()["info"]["id"]
    message = client.message("typed.default", job)
    assert message.payload == '{"n":1,"prompt":"p","z":"\\u003cé\\u003e"}'.encode()
    assert message.timeout == 1800


def test_add_batch_large_keeps_its_order(client: Client) -> None:
    jobs = [{"n": n} for n in range(250)]
    body = {"queue": "typed", "timeout": 7, "jobs": jobs}
    ids = _add(client, body, "/queue/add-batch").json()["task_ids"]
    assert len(set(ids)) == 250
    pending: Any = client.redis.lrange(key("typed.default", "pending"), 0, 249)
    assert [job.decode() for job in reversed(pending)] == ids
    message = client.message("typed.default", ids[-1])
    assert (message.payload, message.timeout) == (b'{"n": 249}', 7)


def test_bearer_token_is_accepted_like_api_key_header(client: Client) -> None:
    headers = {"Authorization": f"Bearer {client.sandbox.admin_key}"}
    response = client.call("GET", "/workers/queues", None, headers=headers)
    assert response.json() == client.call("GET", "/workers/queues").json()
    assert client.call("GET", "/workers/queues", "client").status_code == 403


def test_detail_completed_job_returns_result(client: Client) -> None:
    job = client.add("stored.high", kind="echo")
    client.wait_for(job, "completed")
    detail = client.call("GET", f"/api/queues/stored.high/tasks/{job}").json()
    assert detail["completed_at"]
    assert detail["result"] == '{"kind": "echo"}'
    assert "next_process_at" not in detail


def test_detail_unknown_job_returns_404(client: Client) -> None:
    client.add("stored.high", kind="echo")
    response = client.call("GET", "/api/queues/stored.high/tasks/none")
    assert (response.status_code, response.json()["errors"]) == (
        404,
        ["asynq: task not found"],
    )


def test_delete_completed_job_removes_it(client: Client) -> None:
    job = client.add("stored.high", kind="echo")
    client.wait_for(job, "completed")
    response = client.call("DELETE", f"/api/queues/stored.high/tasks/{job}")
    assert response.json() == {"message": "task deleted", "task_id": job}
    assert not client.redis.zscore(key("stored.high", "completed"), job)


def test_show_queue_completed_job_is_counted(client: Client) -> None:
    job = client.add("stored.low", kind="echo")
    client.wait_for(job, "completed")
    shown = client.call("GET", "/api/queues/stored.low").json()
    assert shown["completed"] == 1
    assert shown["memory_usage"] > 0


def test_show_queue_unknown_returns_404(client: Client) -> None:
    response = client.call("GET", "/api/queues/nope")
    assert response.status_code == 404
    assert 'queue "nope" does not exist' in response.json()["errors"][0]


def test_pause_twice_returns_error_the_second_time(client: Client) -> None:
    path = "/api/queues/stored.low"
    assert client.call("POST", f"{path}/pause").status_code == 200
    assert client.call("GET", path).json()["paused"] is True
    again = client.call("POST", f"{path}/pause")
    assert (again.status_code, "already paused" in again.text) == (500, True)
    assert client.call("POST", f"{path}/unpause").status_code == 200
    again = client.call("POST", f"{path}/unpause")
    assert (again.status_code, "is not paused" in again.text) == (500, True)


def test_register_worker_returns_settings_of_its_queue(client: Client) -> None:
    def register(**body: Any) -> httpx.Response:
        return client.call("POST", "/worker/register", "worker", json=body)

    settings = register(queue="stored").json()
    assert [sub["name"] for sub in settings["sub_queues"]] == [
        "stored.high",
        "stored.low",
    ]
    assert settings["deployment"]["redis_storage"] is True
    assert settings["redis"]["addr"] == f"127.0.0.1:{client.sandbox.redis_port}"
    assert register(queue="plain.default").json()["queue"]["priority"] == 5
    assert register(queue="nope").status_code == 404
    assert register().status_code == 400


def test_unknown_route_returns_404_for_every_method(client: Client) -> None:
    for method, path in (("GET", "/nope"), ("DELETE", "/health")):
        response = client.call(method, path)
        assert (response.status_code, response.text) == (404, "404 page not found")


def test_status_after_flush_reports_unknown_queue(client: Client) -> None:
    job = client.add("typed", prompt="p")
    client.redis.flushall()
    assert client.state(job) == "asynq: queue not found"


def test_server_without_redis_returns_errors(client: Client) -> None:
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
