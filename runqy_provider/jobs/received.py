# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""A delivery that has arrived: its result, its receipt, and a link for people."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from runqy_delivery.wire import FAILED
from runqy_provider.errors import JobFailed, SinkError
from runqy_provider.hooks.result import AUTO, RunqyResultHook
from runqy_provider.models import is_reference
from runqy_provider.sinks.registry import parse_sink

if TYPE_CHECKING:
    from collections.abc import Mapping


log = logging.getLogger(__name__)

#: XCom key of how the result came back.
DELIVERY_KEY = "runqy_delivery"

#: XCom key under which Airflow's UI finds the link to the result.
LINK_KEY = "_link_ResultLink"

_IN_RECEIPT = ("delivery_id", "job_id", "status", "where", "delivered_at")


@dataclass
class ReceivedDelivery:
    """What a task makes of the event of a delivery that has arrived.

    Attributes:
        event: The event.
        results: The hook that reads it.
        returns: See ``RunqyResultHook.collect``.
        receipt: Plain JSON for the XCom ``runqy_delivery``; ``read`` completes it.
        value: The result as it goes to XCom, once ``read``.
        download_url: Where people find it, once ``read``; None where there is no such
            URL.
    """

    event: Mapping[str, Any]
    results: RunqyResultHook
    returns: str = AUTO
    receipt: dict[str, Any] = field(default_factory=dict)
    value: Any = None
    download_url: str | None = None

    def __post_init__(self) -> None:
        self.receipt = {name: self.event[name] for name in _IN_RECEIPT}

    def read(self) -> None:
        """Read the result.

        Raises:
            JobFailed: The task code reported a failure.
            SinkError: It cannot be read.
            BadDelivery: It is not what it says it is.
            TooLarge: A value is demanded, and XCom cannot hold it.
        """
        sink = parse_sink(self.event["sink"])
        try:
            self.value = self.results.collect(
                sink, self.event["where"], self.event["delivery_id"], self.returns
            )
        except JobFailed:
            # Some sinks only tell that there is something; what, is read just now.
            self.receipt["status"] = FAILED
            raise
        if not is_reference(self.value):
            return
        try:
            self.download_url = self.results.link(sink, self.value)
        except SinkError as error:
            # The result is there: a link for people is not worth a failure.
            log.warning("There is no link to the result: %s", error)
        self.receipt["download_url"] = self.download_url

    def forget(self) -> None:
        """Let an inbox drop the result, where its value stands in XCom now."""
        if not is_reference(self.value):
            self.results.forget(self.event["where"])
