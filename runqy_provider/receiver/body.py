# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Read the body of a request, and stop as soon as it is too large or too slow."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from starlette.requests import ClientDisconnect

from runqy_provider.python_compat import reschedule, timeout_at
from runqy_provider.receiver.responses import HttpRejection

if TYPE_CHECKING:
    from starlette.types import Receive

    from runqy_provider.receiver.connections import Limits


async def read_body(receive: Receive, declared: str | None, limits: Limits) -> bytes:
    """Return the whole body.

    Args:
        receive: Returns the messages of an ASGI server.
        declared: The Content-Length header; used only if it exceeds the limit.
        limits: How much to accept, and how slowly.

    Raises:
        HttpRejection: 413 for too large, 408 for too slow.
        ClientDisconnect: The sender has closed the connection.
    """
    limit, most = limits.max_body_bytes, limits.max_body_bytes + limits.max_drain_bytes
    if declared is not None and declared.isdigit() and int(declared[:18]) > most:
        raise _too_large(limit)
    size = 0
    body = bytearray()
    began = asyncio.get_running_loop().time()
    try:
        async with timeout_at(began + _time_for(0, limits)) as limit_in_time:
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect
                chunk = message.get("body", b"")
                size += len(chunk)
                if size > most:
                    raise _too_large(limit)
                if size > limit:
                    # Read to its end anyway: a sender reads the response only after it
                    # has sent everything, and sees a closed connection as an error.
                    body.clear()
                else:
                    body += chunk
                if not message.get("more_body", False):
                    break
                reschedule(limit_in_time, began + _time_for(size, limits))
    except asyncio.TimeoutError:
        raise HttpRejection(
            408,
            f"The body was too slow: {size} bytes, and incomplete. It must arrive at "
            f"{limits.min_bytes_per_second:g} bytes per second, within "
            f"{limits.body_seconds:g} s.",
        ) from None
    if size > limit:
        raise _too_large(limit)
    return bytes(body)


def _too_large(limit: int) -> HttpRejection:
    return HttpRejection(
        413,
        f"The body has more than {limit} bytes, which is the most this receiver "
        "accepts. Deliver large results to an object store.",
    )


def _time_for(size: int, limits: Limits) -> float:
    """Return how long a body may have taken that is this long by now, in seconds."""
    return min(limits.body_seconds, limits.grace + size / limits.min_bytes_per_second)
