# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""A delivery that has arrived: its result, its receipt, and a link for people."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from tenacity import (
    Retrying,
    retry_if_exception_type,
    stop_after_delay,
    wait_random_exponential,
)

from runqy_delivery.wire import FAILED
from runqy_provider.errors import JobFailed, SinkError, SinkUnavailable
from runqy_provider.jobs.telemetry import count_delivered
from runqy_provider.models import AUTO, is_reference
from runqy_provider.sinks.registry import sink_from_uri

if TYPE_CHECKING:
    from collections.abc import Callable

    from tenacity import RetryCallState

    from runqy_provider.hooks.result import RunqyResultHook
    from runqy_provider.models import DeliveryEvent, Reference

T = TypeVar("T")

log = logging.getLogger(__name__)


@dataclass
class ReceivedDelivery:
    """What a task returns and stores when a delivery has arrived.

    Attributes:
        event: The event.
        results: The hook that reads the result.
        returns: See ``RunqyResultHook.collect``.
        receipt: Plain JSON for the XCom ``runqy_delivery``; ``read`` completes it.
        value: The result as it goes to XCom, after ``read``.
        reference: Reference to the result, after ``read``.
        download_url: URL of the result for people, after ``read``; None if there is
            none.
    """

    event: DeliveryEvent
    results: RunqyResultHook
    returns: str = AUTO
    receipt: dict[str, Any] = field(init=False)
    value: Any = None
    reference: Reference | None = None
    download_url: str | None = None

    def __post_init__(self) -> None:
        event = self.event
        self.receipt = {
            "delivery_id": event.job.delivery_id,
            "job_id": event.job.job_id,
            "status": event.status,
            "where": event.result_uri,
            "delivered_at": event.delivered_at,
        }

    def read(self) -> None:
        """Read the result.

        Raises:
            JobFailed: The task code reported a failure.
            SinkError: It cannot be read.
            BadDelivery: It is not of the type that it claims.
            TooLarge: A value is required, and XCom cannot hold it.
        """
        event = self.event
        sink = sink_from_uri(event.job.sink)
        try:
            self.value, self.reference = self.results.collect_with_reference(
                sink, event.job.delivery_id, event.result_uri, self.returns
            )
        except JobFailed:
            # Some sinks only announce a delivery; only now it is known that it is a
            # failure.
            self.receipt["status"] = FAILED
            raise
        # Some sinks only announce a delivery: the result itself is elsewhere.
        self.receipt |= {
            "where": self.reference.uri,
            "content_type": self.reference.content_type,
            "size": self.reference.size,
        }
        log.info("%s", self._arrival_message(self.reference))
        count_delivered(event)
        if not is_reference(self.value):
            return
        try:
            self.download_url = self.results.link(sink, self.value)
        except SinkError as error:
            # The result is available: a missing link must not fail the task.
            log.warning("There is no link to the result: %s", error)
        self.receipt["download_url"] = self.download_url

    def _arrival_message(self, reference: Reference) -> str:
        size = "" if reference.size is None else f"{reference.size:,} bytes of "
        event = self.event
        # A store may write times in whole seconds.
        waited = max(0.0, event.delivered_at - event.job.enqueued_at)
        after = f", {waited:.1f} s after the job was enqueued"
        return (
            f"The result has arrived: {size}{reference.content_type} at "
            f"{reference.uri}{after if event.job.enqueued_at else ''}."
        )

    def forget(self) -> None:
        """Let an inbox drop the result, if its value is now in XCom."""
        if is_reference(self.value):
            return
        try:
            self.results.forget(self.event.result_uri)
        except SinkError as error:
            # The result was read: a failed cleanup must not fail the task.
            log.warning("The delivery stays in the inbox until it expires: %s", error)


#: Seconds after which an unavailable sink is an error.
READ_AGAIN_FOR = 60.0


def while_unavailable(read: Callable[[], T]) -> T:
    """Return what a call returns, for a process that may wait: a worker.

    Args:
        read: Is called again if it raises SinkUnavailable, for a minute.

    Raises:
        SinkUnavailable: The sink is unavailable for longer.
    """
    return Retrying(
        retry=retry_if_exception_type(SinkUnavailable),
        wait=wait_random_exponential(multiplier=0.2, max=5),
        stop=stop_after_delay(READ_AGAIN_FOR),
        before_sleep=_log,
        reraise=True,
    )(read)


def _log(state: RetryCallState) -> None:
    if state.outcome is not None:
        log.warning("%s It will be tried again.", state.outcome.exception())
