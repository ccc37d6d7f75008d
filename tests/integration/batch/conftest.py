"""What the tests of batches share: a run of one RunqyBatchOperator."""

from __future__ import annotations

import threading
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk import DAG

from runqy_provider.operators.runqy_batch import RunqyBatchOperator
from tests.support.harness import Run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def numbers(count: int) -> list[dict[str, Any]]:
    """Return payloads whose jobs return their number."""
    return [{"value": number} for number in range(count)]


def batch_of(payloads: Any, runqy_queue: str = "helper", **arguments: Any) -> Run:
    """Return a run of one RunqyBatchOperator, which polls once and then defers."""
    arguments = {"defer_after": timedelta(0), "sink": "webhook", **arguments}
    with DAG("d", schedule=None):
        task = RunqyBatchOperator(
            task_id="t", runqy_queue=runqy_queue, payloads=payloads, **arguments
        )
    return Run(task)


def run_to_end(run: Run) -> Run:
    """Run a task, and resume it after each deferral until it has ended."""
    run.execute()
    while run.state == "deferred":
        run.resume(run.fire())
    return run


@pytest.fixture(params=["http", "redis"])
def transport(request: pytest.FixtureRequest, connect: Callable[..., Any]) -> str:
    """The transport of the connection: each test runs with both."""
    name = str(request.param)
    connect(transport=name)
    return name


@pytest.fixture
def httpserver_url() -> Iterator[Callable[[int, bytes], str]]:
    """Start web servers with one answer for all requests; call it for an address."""
    servers: list[HTTPServer] = []

    def start(status: int, body: bytes) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Print nothing."""

        server = HTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()
