"""An HTTP server for the tests, and how they deliver a result to it."""

from __future__ import annotations

import contextlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from runqy_delivery import DeliveryRequest, delivers

if TYPE_CHECKING:
    from collections.abc import Iterator

#: The receiver's response to a delivery that it has stored.
STORED = b'{"outcome": "stored"}'


#: How Google and S3 say that a URL has expired: with details, a declaration, spaces.
EXPIRED_BODIES = [
    (
        "<?xml version='1.0' encoding='UTF-8'?><Error><Code>ExpiredToken</Code>"
        "<Message>Invalid argument.</Message><Details>The provided token has expired. "
        "Request signature expired at: 2024-01-02T03:05:05+00:00</Details></Error>"
    ),
    (
        '<?xml version="1.0" encoding="UTF-8"?>\n<Error>\n  <Code>ExpiredToken</Code>\n'
        "  <Message>The provided token has expired.</Message>\n</Error>"
    ),
    "<Error><Code> ExpiredRequest\n</Code></Error>",
]


@dataclass
class ReceivedRequest:
    """One request as the server received it; the names of headers in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class HttpServer:
    """A real HTTP server with canned responses, which records its requests.

    Attributes:
        url: Base URL of the server.
        responses: Status, headers and body of the next responses; the last one is
            repeated.
        requests: The received requests.
    """

    url: str
    responses: list[tuple[int, dict[str, str], bytes]] = field(
        default_factory=lambda: [(200, {}, STORED)]
    )
    requests: list[ReceivedRequest] = field(default_factory=list)


@contextlib.contextmanager
def running_server() -> Iterator[HttpServer]:
    """Run a server on a free port of this machine."""

    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            body = self.rfile.read(length)
            headers = {k.lower(): v for k, v in self.headers.items()}
            request = ReceivedRequest(self.command, self.path, headers, body)
            server.requests.append(request)
            responses = server.responses
            is_last = len(responses) == 1
            status, extra, text = responses[0] if is_last else responses.pop(0)
            self.send_response(status)
            for name, value in extra.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_POST = do_PUT = do_GET = _serve  # noqa: N815 - the base class's names

        def log_message(self, *_: Any) -> None:
            pass

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server = HttpServer(f"http://127.0.0.1:{listener.server_address[1]}")
    thread = threading.Thread(target=listener.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    listener.shutdown()
    listener.server_close()
    thread.join()


def webhook_payload(server: HttpServer, **fields: Any) -> dict[str, Any]:
    """Return the payload fields of a delivery request to a server's webhook."""
    url = f"{server.url}/runqy/conn/v1/deliveries/d-1?expires=9&token=SECRET"
    return DeliveryRequest("d-1", webhook_url=url, **fields).to_fields()


def deliver(server: HttpServer, returned: Any, **fields: Any) -> Any:
    """Deliver what a handler returns, and return the last delivery of the server."""

    @delivers
    def handle(_payload: dict[str, Any]) -> Any:
        return returned

    handle({"input": 1, **webhook_payload(server, **fields)})
    return server.requests[-1].json()


def s3_payload(server: HttpServer, *, webhook: bool, **fields: Any) -> dict[str, Any]:
    """Return the payload fields of a delivery request to S3, with signed URLs.

    Args:
        server: The server that the signed URLs lead to.
        webhook: Whether the request has a webhook, which then gets failures, too.
        fields: Other fields of the request, or other values.
    """
    given: dict[str, Any] = {
        "sink": "s3",
        "url": "s3://results/renders/d-1",
        "bucket": "results",
        "key": "renders/d-1",
        "put_url": f"{server.url}/results/renders/d-1?X-Amz-Signature=SECRET",
    }
    if webhook:
        given["webhook_url"] = f"{server.url}/hook"
    else:
        given["failed_key"] = "renders/d-1.failed.json"
        given["failed_put_url"] = (
            f"{server.url}/results/renders/d-1.failed.json?X-Amz-Signature=SECRET"
        )
    return DeliveryRequest("d-1", **{**given, **fields}).to_fields()
