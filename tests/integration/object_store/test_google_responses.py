"""Responses of Google's storage that its emulator does not give.

fake-gcs-server needs no credentials, and returns 500 for the listing of a bucket that
does not exist. The responses here are those of Google.
"""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from runqy_provider.errors import NoAccess, NotThere, SinkError, SinkUnavailable
from runqy_provider.sinks.object_store.gcs import GoogleStore
from tests.support import harness

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devtools.servers.google_storage import GoogleStorage

pytestmark = pytest.mark.usefixtures("connect", "no_settling")

ERROR = "<?xml version='1.0'?><Error><Code>{}</Code><Message>no</Message></Error>"


class FixedResponseServer(ThreadingHTTPServer):
    """A server whose every response is the same."""

    status = 200
    code = ""


class Handler(BaseHTTPRequestHandler):
    server: FixedResponseServer

    def do_GET(self) -> None:
        body = ERROR.format(self.server.code).encode()
        self.send_response(self.server.status)
        self.send_header("Content-Type", "application/xml; charset=UTF-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def server(
    google: GoogleStorage, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FixedResponseServer]:
    http_server = FixedResponseServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http_server.serve_forever, args=(0.01,))
    thread.start()
    key = {**google.key, "gcs_base_url": f"http://127.0.0.1:{http_server.server_port}"}
    extra = {"keyfile_dict": json.dumps(key)}
    connection = {"conn_type": "google_cloud_platform", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_GOOGLE_CLOUD_DEFAULT", json.dumps(connection))
    yield http_server
    http_server.shutdown()
    thread.join()
    http_server.server_close()


@pytest.mark.parametrize(
    ("status", "code", "error", "message"),
    [
        (401, "AuthenticationRequired", NoAccess, "access denied"),
        (403, "AccessDenied", NoAccess, "access denied"),
        (404, "NoSuchBucket", NotThere, "does not exist"),
        (500, "InternalError", SinkUnavailable, "500"),
    ],
)
def test_google_storage_each_response_is_one_error(
    server: FixedResponseServer,
    status: int,
    code: str,
    error: type[SinkError],
    message: str,
) -> None:
    server.status, server.code = status, code
    run = harness.run_of({"value": 1}, sink="gs://results").execute()

    assert run.state == "failed"
    assert type(run.error) is error
    assert message in str(run.error)
    assert "'google_cloud_default'" in str(run.error) or error is SinkUnavailable
    assert "runqy_job" not in run.xcoms

    store = GoogleStore("results", "google_cloud_default")
    for poll in (lambda: store.list_folder("a/"), lambda: store.head("a")):
        with pytest.raises(error, match="gs://results/a"):
            poll()
