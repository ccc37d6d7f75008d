# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Tell how far a job is: for people, and as a sign of life."""

from __future__ import annotations

import contextlib
import contextvars
import logging
import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from runqy_delivery._http import send_once, show
from runqy_delivery.errors import DeliveryError
from runqy_delivery.sinks.webhook import headers_for
from runqy_delivery.wire import PROGRESS, Delivery

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runqy_delivery.wire import DeliveryRequest

log = logging.getLogger("runqy_delivery")

#: Seconds between two messages; what comes sooner is left out, as a newer one follows.
PAUSE = 1.0

#: Seconds that one message may take: the job's work is more important.
TIMEOUT = 5.0

#: The longest text that is sent, in characters.
LONGEST_TEXT = 500


@dataclass
class _Reporter:
    request: DeliveryRequest
    next_at: float = field(default=-math.inf)


_reporter: contextvars.ContextVar[_Reporter | None] = contextvars.ContextVar(
    "runqy_delivery_reporter", default=None
)


def progress(fraction: float | None = None, text: str | None = None) -> None:
    """Say how far the job is; from within a handler with ``@delivers``.

    Call it as often as you like: it sends at most one message a second, never raises
    for want of a network, and does nothing where nobody asked for a delivery or the
    request names no webhook. In a thread of your own, run it in a copy of the
    handler's ``contextvars`` context.

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
    reporter.next_at = now + PAUSE
    url = reporter.request.webhook_url
    is_number = fraction is not None and math.isfinite(fraction)
    body = Delivery(
        reporter.request.delivery_id,
        status=PROGRESS,
        fraction=min(max(float(fraction or 0), 0.0), 1.0) if is_number else None,
        text=None if text is None else str(text)[:LONGEST_TEXT],
    ).to_json()
    try:
        headers = headers_for(reporter.request.delivery_id, body)
    except DeliveryError as error:
        log.warning("Progress was not sent: %s", error)
        return
    trouble = send_once(url, body, headers, TIMEOUT)
    if trouble is not None:
        log.warning("Progress was not taken by %s: %s", show(url), trouble)


@contextlib.contextmanager
def reporting(request: DeliveryRequest) -> Iterator[None]:
    """Let ``progress`` know which delivery it is about."""
    token = _reporter.set(_Reporter(request))
    try:
        yield
    finally:
        _reporter.reset(token)
