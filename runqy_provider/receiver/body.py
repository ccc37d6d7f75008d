# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Read a request's body, and stop as soon as it is too much or too slow."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from runqy_provider.receiver.answers import Refusal

if TYPE_CHECKING:
    from collections.abc import AsyncIterable


async def read_body(
    chunks: AsyncIterable[bytes], declared: str | None, limit: int, seconds: float
) -> bytes:
    """Return the whole body.

    Args:
        chunks: The body as it comes.
        declared: The Content-Length header; believed only where it says too much.
        limit: The most bytes to take.
        seconds: The longest to wait for the end.

    Raises:
        Refusal: 413 for too much, 408 for too slow.
    """
    too_large = Refusal(
        413,
        f"The body has more than {limit} bytes, which is the most this receiver takes. "
        "Deliver large results to an object store.",
    )
    if declared is not None and declared.isdigit() and int(declared[:18]) > limit:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for chunk in chunks:
                body += chunk
                if len(body) > limit:
                    raise too_large
    except TimeoutError:
        raise Refusal(
            408, f"The body did not come whole within {seconds:g} s."
        ) from None
    return bytes(body)
