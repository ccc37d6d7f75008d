# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The webhook as a channel for failures, beside a sink that is not a webhook itself.

A worker without a driver, an address or a permission cannot write to the sink, nor
report that there. So each delivery request names the webhook for failures, where one is
set up. Task code that follows runqy's guide does not read it.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from runqy_provider.sinks.inbox import InboxBackend, is_in_inbox

if TYPE_CHECKING:
    from runqy_delivery import DeliveryRequest
    from runqy_provider.models import JobRef
    from runqy_provider.sinks.base import BoundSink
    from runqy_provider.sinks.result import StoredResult
    from runqy_provider.waiters.waiter import WaitTarget


def is_used(sink: BoundSink) -> bool:
    """Return whether failures of a sink may arrive by webhook, and nothing else."""
    return sink.sink.needs_failure_channel and InboxBackend(sink.context).is_configured


def with_channel(
    sink: BoundSink, request: DeliveryRequest, expires: float
) -> DeliveryRequest:
    """Return a delivery request that names the channel, where it is used.

    Args:
        sink: The sink that the request is for.
        request: The request.
        expires: Until when the channel must work, in seconds since 1970.
    """
    if not is_used(sink):
        return request
    url = InboxBackend(sink.context).webhook_url(request.delivery_id, expires)
    return dataclasses.replace(request, failure_url=url)


def targets(sink: BoundSink, delivery_id: str) -> list[WaitTarget]:
    """Return the source of failures by webhook; empty where the channel is not used."""
    if not is_used(sink):
        return []
    inbox = InboxBackend(sink.context)
    return [inbox.target(delivery_id, is_required=False, takes_results=False)]


def all_targets(sink: BoundSink, job: JobRef) -> list[WaitTarget]:
    """Return all sources at which the delivery of a job may arrive.

    Raises:
        Misconfigured: The job, or the connection, lacks what is needed to look.
    """
    return [*sink.targets(job), *targets(sink, job.delivery_id)]


def open_arrival(sink: BoundSink, delivery_id: str, uri: str) -> StoredResult:
    """Open what arrived: in the sink, or a failure by webhook.

    Raises:
        SinkError: It cannot be read.
        BadDelivery: It is not what it says it is.
    """
    if is_in_inbox(uri) and not sink.owns(uri):
        return InboxBackend(sink.context).open(uri, sink.open_url)
    return sink.open_arrival(delivery_id, uri)
