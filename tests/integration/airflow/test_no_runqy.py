"""Another server answers at runqy's address: a proxy, or a maintenance page."""

from __future__ import annotations

import http.server
import json
import threading
import time
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from runqy_provider.client import api as server_http
from runqy_provider.client.job_status import ApiJobStatusReader
from runqy_provider.connections import RunqyConnection
from runqy_provider.errors import (
    QueueNotFound,
    Rejected,
    RunqyError,
    ServerUnavailable,
)
from runqy_provider.hooks.runqy import RunqyHook
from tests.support.harness import outcome_of, run_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.stack import Gate

pytestmark = pytest.mark.usefixtures("connect", "no_settling")

PAGE = b"<html>down for maintenance</html>"
ANSWERS = [
    (200, PAGE),
    (200, b"[]"),
    (200, b'{"info": null}'),
    (404, PAGE),
    (403, PAGE),
    (502, PAGE),
    (302, PAGE),
]


class CountingServer(http.server.ThreadingHTTPServer):
    requests = 0


@contextmanager
def answering(status: int, body: bytes, wait: float = 0.0) -> Iterator[CountingServer]:
    """Yield a server that gives the same response to every request, and counts them."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.requests += 1
            never.wait(wait)
            with suppress(ConnectionError):  # the client has closed the connection
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        do_POST = do_DELETE = do_GET  # noqa: N815 - the names that http.server expects

        def log_message(self, *_args: Any) -> None: ...

    never = threading.Event()
    with CountingServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            never.set()
            server.shutdown()
            thread.join()


def address(server: CountingServer) -> str:
    return f"http://127.0.0.1:{server.server_port}"


@pytest.mark.parametrize(("status", "body"), ANSWERS)
def test_hook_foreign_response_is_not_taken_for_job_state(
    status: int, body: bytes, connect: Callable[..., Any]
) -> None:
    with answering(status, body) as server:
        connect(fields={"host": address(server)})
        with RunqyHook(retry_for=0) as hook:
            with pytest.raises((ServerUnavailable, Rejected)):
                hook.get_job("some-job")
            with pytest.raises((ServerUnavailable, Rejected)):
                hook.enqueue("some.queue", {})
            with pytest.raises(RunqyError):
                hook.list_workers()
            assert hook.test_connection()[0] is False


def test_hook_queue_not_found_response_raises_queue_not_found(
    connect: Callable[..., Any],
) -> None:
    body = json.dumps({"errors": ["queue not found"]}).encode()
    with answering(404, body) as server, RunqyHook(retry_for=0) as hook:
        connect(fields={"host": address(server)})
        with pytest.raises(QueueNotFound):
            hook.enqueue("some.queue", {})


@pytest.mark.parametrize(("status", "body"), ANSWERS[:1] + ANSWERS[2:5])
@pytest.mark.parametrize("sink", ["webhook", "redis_storage"])
def test_operator_foreign_server_responds_keeps_waiting(
    status: int,
    body: bytes,
    sink: str,
    connect: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    gate: Gate,
) -> None:
    monkeypatch.setenv("AIRFLOW__RUNQY__WATCH_SECONDS", "0.2")
    monkeypatch.setenv("AIRFLOW__RUNQY__VANISHED_GRACE_SECONDS", "0.2")
    limit = timedelta(seconds=2)
    queue = "stored" if sink == "redis_storage" else "idle"
    run = run_of(gate.closed, queue, sink=sink, delivery_timeout=limit).execute()
    with answering(status, body) as server:
        connect(without=("runqy_redis_conn_id",), fields={"host": address(server)})
        event = run.fire()

    assert event["kind"] == "deadline", event


async def test_job_status_reader_silent_server_gets_few_requests(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server_http, "REQUEST_TIMEOUT", 0.5)
    with answering(200, PAGE, wait=30) as server:
        job_status_reader = ApiJobStatusReader(RunqyConnection("c", address(server)))
        began = time.monotonic()
        with pytest.raises(RunqyError, match="cannot be asked about jobs") as caught:
            await job_status_reader.poll([("q", f"job-{n}") for n in range(40)])
        assert time.monotonic() - began < 4
        assert server.requests <= 4
        await job_status_reader.aclose()
    assert "job-" not in str(caught.value), "all waiting tasks log this message"


def test_operator_wrong_admin_key_still_returns_value(
    connect: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the list of workers needs the admin key; polling jobs does not."""
    monkeypatch.setenv("AIRFLOW__RUNQY__WATCH_SECONDS", "0.2")
    connect(without=("runqy_redis_conn_id",), admin_api_key="wrong")

    assert outcome_of(run_of({"value": 1, "seconds": 1})) == 1
