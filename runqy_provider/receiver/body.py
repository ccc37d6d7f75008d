# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Read the body of a request, and stop as soon as it is too large or too slow."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from runqy_provider.python_compat import reschedule, timeout_at
from runqy_provider.receiver.responses import HttpRejection

if TYPE_CHECKING:
    from collections.abc import AsyncIterable

    from runqy_provider.receiver.connections import Limits


async def read_body(
    chunks: AsyncIterable[bytes], declared: str | None, limits: Limits
) -> bytes:
    """Return the whole body.

    Args:
        chunks: The body as it comes.
        declared: The Content-Length header; used only where it exceeds the limit.
        limits: How much to accept, and how slowly.

    Raises:
        HttpRejection: 413 for too large, 408 for too slow.
    """
    limit, most = limits.max_body_bytes, limits.max_body_bytes + limits.max_drain_bytes
    too_large = HttpRejection(
        413,
        f"The body has more than {limit} bytes, which is the most this receiver "
        "accepts. "
        "Deliver large results to an object store.",
    )
    if declared is not None and declared.isdigit() and int(declared[:18]) > most:
        raise too_large
    size = 0
    body = bytearray()
    began = asyncio.get_running_loop().time()
    try:
        async with timeout_at(began + _time_for(0, limits)) as limit_in_time:
            async for chunk in chunks:
                size += len(chunk)
                if size > most:
                    raise too_large
                if size > limit:
                    # Read to its end all the same: a sender reads the response only
                    # after it has sent, and sees a closed connection as an error.
                    body.clear()
                else:
                    body += chunk
                reschedule(limit_in_time, began + _time_for(size, limits))
    except asyncio.TimeoutError:
        raise HttpRejection(
            408,
            f"The body was too slow: {size} bytes, and incomplete. It must arrive "
            f"at {limits.min_bytes_per_second:g} bytes a second, within "
            f"{limits.body_seconds:g} s.",
        ) from None
    if size > limit:
        raise too_large
    return bytes(body)


def _time_for(size: int, limits: Limits) -> float:
    """Return how long a body may have taken that is this long by now, in seconds."""
    return min(limits.body_seconds, limits.grace + size / limits.min_bytes_per_second)
