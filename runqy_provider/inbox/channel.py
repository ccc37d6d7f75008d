# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Channels: deliveries that start a DAG, instead of ending the wait of a task.

The channel is part of the delivery id. So the token of the callback URL protects it,
and a job delivers to a channel as to any other callback URL.
"""

from __future__ import annotations

import json
import re
import uuid
from typing import TYPE_CHECKING, Any

from runqy_provider.errors import Misconfigured
from runqy_provider.inbox import keys

if TYPE_CHECKING:
    from runqy_delivery import Delivery

_CHANNEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_DELIVERY_ID = re.compile(r"channel--([A-Za-z0-9][A-Za-z0-9_.-]{0,63})--[0-9a-f]{32}")

#: The most deliveries that a channel keeps until they are read.
MOST_KEPT = 10_000

#: Metadata with more characters than this, as JSON, are left out of an event.
LONGEST_METADATA = 16_384

#: The longest message of a failure in an event, in characters.
LONGEST_ERROR = 2000


def check_channel(channel: str) -> None:
    """Refuse a name that a delivery id cannot contain.

    Raises:
        Misconfigured: It is such a name.
    """
    if not _CHANNEL.fullmatch(channel) or "--" in channel:
        raise Misconfigured(
            f"{channel!r} is not a valid channel: up to 64 letters, digits, dots, "
            "dashes and underscores, with a letter or digit first, without '--'."
        )


def new_channel_delivery_id(channel: str) -> str:
    """Return the id of a new delivery to a channel.

    Raises:
        Misconfigured: The name of the channel is not valid.
    """
    check_channel(channel)
    return f"channel--{channel}--{uuid.uuid4().hex}"


def channel_of(delivery_id: str) -> str | None:
    """Return the channel of a delivery; None if it is for a task."""
    found = _DELIVERY_ID.fullmatch(delivery_id)
    return None if found is None else found[1]


def event_of(delivery: Delivery, size: int, conn_id: str, at: float) -> dict[str, Any]:
    """Return what a DAG gets of a delivery, as plain JSON without its result.

    Args:
        delivery: The delivery.
        size: Size of its body, in bytes.
        conn_id: The runqy connection whose webhook it came by.
        at: When it arrived, in seconds since 1970.
    """
    event: dict[str, Any] = {
        "delivery_id": delivery.delivery_id,
        "channel": channel_of(delivery.delivery_id),
        "status": delivery.status,
        "delivered_at": at,
    }
    if delivery.error is not None:
        event["error"] = delivery.error.message[:LONGEST_ERROR]
        return event
    metadata = delivery.metadata
    if metadata is not None and len(json.dumps(metadata)) > LONGEST_METADATA:
        metadata = None
    event["reference"] = {
        "uri": delivery.result_url or keys.delivery_uri(conn_id, delivery.delivery_id),
        "content_type": delivery.content_type or "application/json",
        "size": size if delivery.size is None else delivery.size,
        "delivery_id": delivery.delivery_id,
        "metadata": metadata,
        "runqy_conn_id": conn_id,
    }
    return event
