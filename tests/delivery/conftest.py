"""The far side's tests: they need the standard library, pytest, and no Airflow."""

from __future__ import annotations

import importlib.util
import json
import os
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from runqy_delivery import _retry as patience

if TYPE_CHECKING:
    from collections.abc import Iterator


def pytest_sessionstart() -> None:
    if os.environ.get("RUNQY_DELIVERY_ALONE") and importlib.util.find_spec("airflow"):
        pytest.exit("Airflow can be imported here: the far side is not alone", 1)


#: What our receiver answers to a delivery that it has stored.
TAKEN = b'{"outcome": "stored"}'


@dataclass
class Seen:
    """One request as a server saw it."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Server:
    """A real HTTP server that answers as it is told, and remembers what came.

    ``answers`` are used up one by one; the last one stays.
    """

    url: str
    answers: list[tuple[int, dict[str, str], bytes]] = field(
        default_factory=lambda: [(200, {}, TAKEN)]
    )
    seen: list[Seen] = field(default_factory=list)


@pytest.fixture
def server() -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            body = self.rfile.read(length)
            headers = {k.lower(): v for k, v in self.headers.items()}
            told.seen.append(Seen(self.command, self.path, headers, body))
            answers = told.answers
            status, more, text = answers.pop(0) if len(answers) > 1 else answers[0]
            self.send_response(status)
            for name, value in more.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_POST = do_PUT = do_GET = _serve  # noqa: N815 - the base class's names

        def log_message(self, *_: Any) -> None:
            pass

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    told = Server(f"http://127.0.0.1:{listener.server_address[1]}")
    thread = threading.Thread(target=listener.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield told
    listener.shutdown()
    listener.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the pauses between tries short; what is tested is that there are some."""
    monkeypatch.setattr(patience, "FIRST_DELAY", 0.01)
    monkeypatch.setattr(patience, "LONGEST_DELAY", 0.02)
    monkeypatch.setenv(patience.RETRY_FOR_VARIABLE, "5")
