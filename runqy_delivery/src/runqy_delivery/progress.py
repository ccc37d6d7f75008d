# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Report the progress of a job: people read it, and Airflow takes it as a heartbeat."""

from __future__ import annotations

import contextlib
import contextvars
import logging
import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from runqy_delivery._http import redact, send_once
from runqy_delivery.errors import DeliveryError
from runqy_delivery.sinks.webhook import headers_for
from runqy_delivery.wire import PROGRESS, Delivery

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runqy_delivery.wire import DeliveryRequest

log = logging.getLogger("runqy_delivery")

#: The shortest interval between two messages, in seconds; calls in between are dropped.
MIN_INTERVAL = 1.0

#: Seconds that sending one message may take: the job waits for it.
TIMEOUT = 5.0

#: The longest text that is sent, in characters.
MAX_TEXT = 500


@dataclass
class _Reporter:
    """The delivery that a handler's progress belongs to.

    Attributes:
        request: The delivery request.
        next_at: When the next message may be sent, in monotonic seconds.
    """

    request: DeliveryRequest
    next_at: float = field(default=-math.inf)


_reporter: contextvars.ContextVar[_Reporter | None] = contextvars.ContextVar(
    "runqy_delivery_reporter", default=None
)


def progress(fraction: float | None = None, text: str | None = None) -> None:
    """Report how much of the job is done; call it in a handler with ``@delivers``.

    Call it as often as you like: it sends at most one message per second, and raises no
    error if the message cannot be sent. It does nothing if the payload has no
    delivery request, or the request has no webhook. A thread that you start does not
    know the delivery; run it in a copy of the handler's ``contextvars`` context.

    Args:
        fraction: How much is done, from 0 to 1.
        text: What is being done; cut after 500 characters.
    """
    reporter = _reporter.get()
    if reporter is None or reporter.request.webhook_url is None:
        return
    now = time.monotonic()
    if now < reporter.next_at:
        return
    reporter.next_at = now + MIN_INTERVAL
    _send(reporter.request, reporter.request.webhook_url, fraction, text)


@contextlib.contextmanager
def reporting(request: DeliveryRequest) -> Iterator[None]:
    """Within this context, ``progress`` reports about this delivery request."""
    token = _reporter.set(_Reporter(request))
    try:
        yield
    finally:
        _reporter.reset(token)


def _send(
    request: DeliveryRequest, url: str, fraction: float | None, text: str | None
) -> None:
    is_number = fraction is not None and math.isfinite(fraction)
    body = Delivery(
        request.delivery_id,
        status=PROGRESS,
        fraction=min(max(float(fraction or 0), 0.0), 1.0) if is_number else None,
        text=None if text is None else str(text)[:MAX_TEXT],
    ).to_json()
    try:
        headers = headers_for(request.delivery_id, body)
    except DeliveryError as error:
        log.warning("Progress was not sent: %s", error)
        return
    failure = send_once(url, body, headers, TIMEOUT)
    if failure is not None:
        log.warning("Progress could not be sent to %s: %s", redact(url), failure)
