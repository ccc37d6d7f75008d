# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Read a request's body, and stop as soon as it is too much or too slow."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from runqy_provider.receiver.responses import Refusal

if TYPE_CHECKING:
    from collections.abc import AsyncIterable

    from runqy_provider.receiver.connections import Limits


async def read_body(
    chunks: AsyncIterable[bytes], declared: str | None, limits: Limits
) -> bytes:
    """Return the whole body.

    Args:
        chunks: The body as it comes.
        declared: The Content-Length header; believed only where it says too much.
        limits: How much to take, and how slowly.

    Raises:
        Refusal: 413 for too much, 408 for too slow.
    """
    limit, most = limits.max_body, limits.max_body + limits.drained
    too_large = Refusal(
        413,
        f"The body has more than {limit} bytes, which is the most this receiver takes. "
        "Deliver large results to an object store.",
    )
    if declared is not None and declared.isdigit() and int(declared[:18]) > most:
        raise too_large
    size = 0
    body = bytearray()
    began = asyncio.get_running_loop().time()
    try:
        async with asyncio.timeout_at(began + _time_for(0, limits)) as patience:
            async for chunk in chunks:
                size += len(chunk)
                if size > most:
                    raise too_large
                if size > limit:
                    # Read to its end all the same: a sender hears no answer before it
                    # has sent, and would take a closed connection for a broken one.
                    body.clear()
                else:
                    body += chunk
                patience.reschedule(began + _time_for(size, limits))
    except TimeoutError:
        raise Refusal(
            408,
            f"The body came too slowly: {size} bytes, and not whole. It must come "
            f"at {limits.slowest:g} bytes a second, within {limits.body_seconds:g} s.",
        ) from None
    if size > limit:
        raise too_large
    return bytes(body)


def _time_for(size: int, limits: Limits) -> float:
    """Return how long a body may have taken that is this long by now, in seconds."""
    return min(limits.body_seconds, limits.grace + size / limits.slowest)
