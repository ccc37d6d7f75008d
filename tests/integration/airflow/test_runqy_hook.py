"""RunqyHook against the sandbox's server, sync and async."""

from __future__ import annotations

import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from redis import Redis

from runqy_provider.client import api
from runqy_provider.client.api import ApiResponse
from runqy_provider.client.models import Job
from runqy_provider.errors import (
    InvalidPayload,
    JobVanished,
    Misconfigured,
    NotAllowed,
    PayloadTooLarge,
    QueueNotFound,
    Rejected,
    ServerUnavailable,
)
from runqy_provider.hooks.runqy import RunqyHook
from runqy_sandbox.process.net import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.stack import Gate, Stack

pytestmark = pytest.mark.usefixtures("connect")


@pytest.fixture
def hook() -> Iterator[RunqyHook]:
    with RunqyHook(retry_for=0) as hook:
        yield hook


def test_hook_enqueue_get_and_delete_job_succeed(hook: RunqyHook) -> None:
    job = hook.enqueue("idle", {"a": 1}, job_timeout=5)

    assert (job.runqy_queue, job.state, job.payload) == (
        "idle.default",
        "pending",
        {"a": 1},
    )
    found = hook.get_job(job.job_id)
    assert found == job
    assert "payload" not in repr(found)
    assert hook.delete_job("idle.default", job.job_id)
    with pytest.raises(JobVanished, match="has forgotten job"):
        hook.get_job(job.job_id)
    with pytest.raises(JobVanished):
        hook.delete_job("idle.default", job.job_id)


def test_hook_get_unknown_job_raises_job_vanished(hook: RunqyHook) -> None:
    with pytest.raises(JobVanished, match="does not know job"):
        hook.get_job("00000000-0000-4000-8000-000000000000")


def test_hook_list_workers_returns_live_workers(hook: RunqyHook) -> None:
    # Workers that other tests have ended are listed for a while.
    workers = [worker for worker in hook.list_workers() if not worker.is_stale]

    assert workers
    assert {worker.status for worker in workers} == {"running"}
    assert all("helper.default" in worker.queues for worker in workers)


def test_hook_get_conn_reuses_session(hook: RunqyHook) -> None:
    assert hook.list_workers()
    assert hook.get_conn() is hook.get_conn()
    hook.close()
    assert hook.list_workers()


def test_hook_delete_running_job_returns_false(
    hook: RunqyHook, stack: Stack, gate: Gate
) -> None:
    job = hook.enqueue("helper", gate.closed)
    key = f"asynq:{{helper.default}}:t:{job.job_id}"
    with Redis.from_url(stack.sandbox.redis_url) as redis:
        while redis.hget(key, "state") == b"pending":
            time.sleep(0.01)

    assert hook.delete_job("helper.default", job.job_id) is False


def test_hook_test_connection_enqueues_nothing(hook: RunqyHook, stack: Stack) -> None:
    with Redis.from_url(stack.sandbox.redis_url) as redis:
        before = set(redis.keys("asynq:*:t:*"))
        hook.test_connection()
        assert set(redis.keys("asynq:*:t:*")) <= before


def test_hook_admin_key_missing_uses_client_key(connect: Any, stack: Stack) -> None:
    connect(without=("admin_api_key",), fields={"password": stack.sandbox.admin_key})
    with RunqyHook(retry_for=0) as hook:
        assert hook.list_workers()

    connect(without=("admin_api_key",))
    with (
        RunqyHook(retry_for=0) as hook,
        pytest.raises(NotAllowed, match=r"does not know the key|role admin"),
    ):
        hook.list_workers()

    connect(without=("admin_api_key",), fields={"password": None})
    with (
        RunqyHook(retry_for=0) as hook,
        pytest.raises(NotAllowed, match="has no Admin key"),
    ):
        hook.list_workers()


@pytest.mark.parametrize("value", [float("nan"), {1}, object()])
def test_hook_payload_not_json_is_not_sent(hook: RunqyHook, value: Any) -> None:
    with pytest.raises(InvalidPayload, match="is not JSON"):
        hook.enqueue("idle", {"x": value})


def test_hook_payload_over_fifty_mebibytes_is_not_sent(hook: RunqyHook) -> None:
    with pytest.raises(PayloadTooLarge, match="object store"):
        hook.enqueue("idle", {"x": "y" * api.MAX_BODY})


class Flaky:
    """A real server; for an empty response, it closes the connection instead."""

    def __init__(self, answers: list[bytes]) -> None:
        self.requests: list[bytes] = []
        self._answers = answers
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        for answer in self._answers:
            connection, _ = self._listener.accept()
            with connection:
                self.requests.append(connection.recv(65536))
                if answer:
                    connection.sendall(answer)

    def close(self) -> None:
        self._thread.join(10)
        self._listener.close()


def answer(status: int, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"Connection: close\r\n\r\n" + body


def test_hook_enqueue_without_response_is_not_sent_again(connect: Any) -> None:
    flaky = Flaky([b""])
    connect(fields={"host": flaky.url})

    with (
        RunqyHook(retry_for=5) as hook,
        pytest.raises(ServerUnavailable, match="may have been enqueued"),
    ):
        hook.enqueue("idle", {})
    flaky.close()
    assert len(flaky.requests) == 1


def test_hook_get_job_broken_connection_is_retried(connect: Any) -> None:
    info = b'{"Info": {"id": "j", "queue": "q.default", "state": "active"}}'
    flaky = Flaky([b"", answer(503, b""), answer(200, info)])
    connect(fields={"host": flaky.url})

    with RunqyHook(retry_for=20) as hook:
        assert hook.get_job("j") == Job("j", "q.default", "active")
    flaky.close()
    assert len(flaky.requests) == 3


def test_hook_server_unavailable_for_a_moment_is_retried(connect: Any) -> None:
    port = free_port()
    connect(fields={"host": f"http://127.0.0.1:{port}"})
    body = b'{"info": {"id": "j", "queue": "q.default", "state": "pending"}}'

    def appear() -> None:
        listener = socket.create_server(("127.0.0.1", port))
        connection, _ = listener.accept()
        connection.recv(65536)
        connection.sendall(answer(200, body))
        connection.close()
        listener.close()

    timer = threading.Timer(0.5, appear)
    timer.start()
    with RunqyHook(retry_for=20) as hook:
        assert hook.enqueue("q", {}).job_id == "j"
    timer.join()


@pytest.mark.parametrize(
    ("given", "error"),
    [
        (ApiResponse(500, b'{"errors": ["boom"]}'), ServerUnavailable),
        (ApiResponse(418, b"a teapot"), Rejected),
        (
            ApiResponse(413, b'{"errors": ["http: request body too large"]}'),
            PayloadTooLarge,
        ),
        (
            ApiResponse(400, b'{"errors": ["dial tcp 1.2.3.4:6379: refused"]}'),
            ServerUnavailable,
        ),
        (ApiResponse(400, b'{"errors": ["prompt is required"]}'), InvalidPayload),
        (ApiResponse(404, b'{"errors": ["queue not found: q.x"]}'), QueueNotFound),
    ],
)
def test_enqueue_response_errors_raise_matching_exceptions(
    given: ApiResponse, error: type[Exception]
) -> None:
    with pytest.raises(error) as caught:
        api.enqueue("q.x", {}, None).read(given)
    assert type(caught.value) is error


@pytest.mark.parametrize("call", [api.get_job("j"), api.delete_job("q", "j")])
def test_job_response_unknown_500_is_not_job_vanished(call: Any) -> None:
    with pytest.raises(ServerUnavailable):
        call.read(ApiResponse(500, b'{"errors": ["redis: nil"]}'))
    for message in (api.NO_TASK, api.NO_QUEUE):
        with pytest.raises(JobVanished):
            call.read(ApiResponse(500, b'{"errors": ["' + message.encode() + b'"]}'))


@pytest.mark.parametrize(
    ("info", "result"),
    [
        ({"Result": '{"a": 1}'}, {"a": 1}),
        ({"Result": "plain"}, "plain"),
        ({"Result": ""}, None),
        ({"payload": "not json, not base64"}, None),
    ],
)
def test_job_result_of_any_form_is_parsed(info: dict[str, Any], result: Any) -> None:
    job = Job.from_info({"id": "j", "queue": "q", "state": "completed", **info})

    assert job.result == result
    assert job.payload is None


def test_connection_extra_not_json_object_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from types import SimpleNamespace

    from runqy_provider.connections import RunqyConnection

    fields = dict.fromkeys(("port", "login", "password", "schema", "conn_type"))
    connection: Any = SimpleNamespace(conn_id="c", host="h", extra="[1]", **fields)
    with pytest.raises(Misconfigured, match="not a JSON object"):
        RunqyConnection.from_connection(connection)


def test_hook_invalid_host_raises_is_an_error_of_the_connection(
    hook: RunqyHook, connect: Any
) -> None:
    connect(fields={"host": "http://[::1"})

    with pytest.raises((Misconfigured, ValueError)):
        RunqyHook(retry_for=0).list_workers()
