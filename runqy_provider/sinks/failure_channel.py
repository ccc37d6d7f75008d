# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The webhook as a channel for failures, beside a sink that is no webhook itself.

A worker without a driver, an address or a right cannot write into the sink, nor say so
there. Where a webhook is set up, each delivery request names it for failures; task code
after runqy's guide does not look at it.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from runqy_provider.sinks import inbox as inbox_parcels

if TYPE_CHECKING:
    from runqy_delivery import DeliveryRequest
    from runqy_provider.context import Access
    from runqy_provider.sinks.base import Sink
    from runqy_provider.sinks.result import Parcel
    from runqy_provider.waiters.source import Place


def is_used(access: Access, sink: Sink) -> bool:
    """Tell whether failures of a sink may come by webhook, and nothing else of it."""
    return sink.needs_failure_channel and inbox_parcels.missing(access) is None


def with_channel(
    access: Access, sink: Sink, request: DeliveryRequest, expires: float
) -> DeliveryRequest:
    """Return a delivery request that names the channel, where it is used.

    Args:
        access: What is known of the connection.
        sink: The sink that the request is for.
        request: The request.
        expires: Until when the channel must work, in seconds since 1970.
    """
    if not is_used(access, sink):
        return request
    url = inbox_parcels.webhook_url(access, request.delivery_id, expires)
    return dataclasses.replace(request, failure_url=url)


def places(access: Access, sink: Sink, delivery_id: str) -> list[Place]:
    """Return where a failure may arrive by the channel; empty where it is not used."""
    if not is_used(access, sink):
        return []
    return [
        inbox_parcels.place(
            access, delivery_id, is_essential=False, takes_results=False
        )
    ]


def open_arrival(access: Access, sink: Sink, where: str) -> Parcel:
    """Open what arrived: in the sink, or a failure that came by the channel.

    Raises:
        SinkError: It cannot be read.
        BadDelivery: It is not what it says it is.
    """
    if where.startswith(inbox_parcels.SCHEME) and not sink.owns(where):
        return inbox_parcels.open_letter(
            access, where, lambda delivery, url: sink.follow(access, delivery, url)
        )
    return sink.open(access, where)
