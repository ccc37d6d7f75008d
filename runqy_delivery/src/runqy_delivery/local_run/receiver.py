# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""A small webhook server on this machine; it answers like the provider's receiver."""

from __future__ import annotations

import contextlib
import json
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Callable

from runqy_delivery.errors import BadDelivery
from runqy_delivery.wire import COMPLETED, FAILED, Delivery, DeliveryRequest

if TYPE_CHECKING:
    from collections.abc import Iterator

#: The largest delivery that is accepted, in bytes: the provider's default.
MAX_BYTES = 8 * 1024 * 1024

#: Seconds that the body of a request may take to arrive.
BODY_TIMEOUT = 30.0


class LocalReceiver:
    """Accepts the deliveries of one job; the first final one is kept.

    Args:
        delivery_id: Id of the delivery.
        on_progress: Called with each progress message, from a thread of the server.

    Attributes:
        final: The first completed or failed delivery; None before it arrived.
        refused: Why requests were refused, in the order of their arrival.
    """

    def __init__(
        self, delivery_id: str, on_progress: Callable[[Delivery], None]
    ) -> None:
        self.final: Delivery | None = None
        self.refused: list[str] = []
        self._delivery_id = delivery_id
        self._on_progress = on_progress
        self._path = f"/runqy/local/v1/deliveries/{delivery_id}"
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def listening(self) -> Iterator[DeliveryRequest]:
        """Accept deliveries on a free port within this context.

        Yields:
            The delivery request that leads to this receiver.
        """
        receiver = self

        class Handler(_Handler):
            answer = staticmethod(receiver.answer)

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield DeliveryRequest(
                self._delivery_id,
                webhook_url=f"http://127.0.0.1:{server.server_address[1]}{self._path}",
                max_bytes=MAX_BYTES,
            )
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    def answer(self, path: str, body: bytes) -> tuple[int, dict[str, str]]:
        """Take a POST, and return the HTTP status and the JSON object to answer with.

        Args:
            path: Path of the request.
            body: Body of the request.
        """
        with self._lock:
            status, answer = self._answer(path, body)
            if "error" in answer:
                self.refused.append(f"{status}: {answer['error']}")
        return status, answer

    def _answer(self, path: str, body: bytes) -> tuple[int, dict[str, str]]:
        if path.partition("?")[0] != self._path:
            return 403, {"error": f"{path} is not the webhook_url of this job."}
        if len(body) > MAX_BYTES:
            return 413, {"error": f"A delivery has at most {MAX_BYTES:,} bytes."}
        try:
            delivery = Delivery.from_json(body)
        except BadDelivery as error:
            return 400, {"error": str(error)}
        if delivery.delivery_id != self._delivery_id:
            return 400, {"error": "The delivery has another task_id than the payload."}
        return self._keep(delivery)

    def _keep(self, delivery: Delivery) -> tuple[int, dict[str, str]]:
        if delivery.status not in (COMPLETED, FAILED):
            self._on_progress(delivery)
            return 202, {"outcome": "noted"}
        if self.final is None:
            self.final = delivery
            return 200, {"outcome": "stored"}
        if _comparable(delivery) == _comparable(self.final):
            return 200, {"outcome": "repeated"}
        return 409, {"error": "Another final delivery arrived first, and is kept."}


def _comparable(delivery: Delivery) -> Delivery:
    """Return a delivery without what differs between two runs of the same job."""
    error = delivery.error
    if error is not None:
        error = replace(error, traceback=None)
    return replace(delivery, log=None, error=error)


class _Handler(BaseHTTPRequestHandler):
    timeout = BODY_TIMEOUT
    answer: Callable[[str, bytes], tuple[int, dict[str, str]]]

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        # A body that is too large is read, too: a client may miss the answer otherwise.
        body = self.rfile.read(int(length) if length.isdigit() else 0)
        status, answer = self.answer(self.path, body)
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Log nothing: the report says what arrived."""
