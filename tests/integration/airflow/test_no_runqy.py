"""Somebody else answers at the server's address: a proxy, or a page for people."""

from __future__ import annotations

import http.server
import json
import threading
import time
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from runqy_provider.client import transport as server_http
from runqy_provider.client.job_status import ServerLookout
from runqy_provider.connections import RunqySettings
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


@contextmanager
def answering(status: int, body: bytes, wait: float = 0.0) -> Iterator[Any]:
    """Yield a server that gives one answer to everything, and counts."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.asked += 1  # type: ignore[attr-defined]
            never.wait(wait)
            with suppress(ConnectionError):  # whoever asked has gone
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        do_POST = do_DELETE = do_GET  # noqa: N815 - the library's names

        def log_message(self, *_args: Any) -> None: ...

    never = threading.Event()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.asked = 0  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            never.set()
            server.shutdown()
            thread.join()


def address(server: Any) -> str:
    return f"http://127.0.0.1:{server.server_port}"


@pytest.mark.parametrize(("status", "body"), ANSWERS)
def test_what_is_not_runqys_says_nothing_of_a_job(
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


def test_runqys_own_404_is_one(connect: Callable[..., Any]) -> None:
    body = json.dumps({"errors": ["queue not found"]}).encode()
    with answering(404, body) as server, RunqyHook(retry_for=0) as hook:
        connect(fields={"host": address(server)})
        with pytest.raises(QueueNotFound):
            hook.enqueue("some.queue", {})


@pytest.mark.parametrize(("status", "body"), ANSWERS[:1] + ANSWERS[2:5])
@pytest.mark.parametrize("sink", ["webhook", "redis_storage"])
def test_a_wait_goes_on_while_somebody_else_answers(
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

    assert event["event"] == "deadline", event


async def test_a_server_that_never_answers_is_not_asked_about_every_job(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server_http, "REQUEST_TIMEOUT", 0.5)
    with answering(200, PAGE, wait=30) as server:
        lookout = ServerLookout(RunqySettings("c", address(server)))
        began = time.monotonic()
        with pytest.raises(RunqyError, match="cannot be asked about jobs") as caught:
            await lookout.look([("q", f"job-{n}") for n in range(40)])
        assert time.monotonic() - began < 4
        assert server.asked <= 4
        await lookout.aclose()
    assert "job-" not in str(caught.value), "it is told to all who wait"


def test_a_value_comes_home_though_the_workers_are_not_told(
    connect: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An admin key that the server refuses spoils no look at the jobs."""
    monkeypatch.setenv("AIRFLOW__RUNQY__WATCH_SECONDS", "0.2")
    connect(without=("runqy_redis_conn_id",), admin_api_key="wrong")

    assert outcome_of(run_of({"value": 1, "seconds": 1})) == 1
