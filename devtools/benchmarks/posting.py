# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""POST deliveries to receivers, each at its moment, and note when each was sent."""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from devtools.benchmarks.raw_http import exchange, post_request
from devtools.benchmarks.servers import CONN_ID
from runqy_delivery import Delivery
from runqy_provider.inbox import callback_url

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

#: The result of a delivery: 200 characters.
RESULT = {"text": "x" * 200}


async def post_all(
    receivers: Sequence[str], secret: str, names: Sequence[str], rate: float
) -> dict[str, float]:
    """POST one delivery for each name, to one receiver after the other.

    Args:
        receivers: Their addresses; each gets a connection of its own.
        secret: The callback secret.
        names: Ids of the deliveries.
        rate: Deliveries per second, in total.

    Returns:
        By name: when it was sent, by the monotonic clock.

    Raises:
        RuntimeError: A receiver refused one.
    """
    sent: dict[str, float] = {}
    began = time.monotonic() + 0.1
    turns = list(enumerate(names))

    async def post(url: str, share: list[tuple[int, str]]) -> None:
        parts = urlsplit(url)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        expires = int(time.time()) + 3600
        for turn, name in share:
            address = callback_url.url(url, secret, CONN_ID, name, expires)
            request = post_request(address, Delivery(name, result=RESULT).to_json())
            await asyncio.sleep(max(0.0, began + turn / rate - time.monotonic()))
            sent[name] = time.monotonic()
            answer = await exchange(reader, writer, request)
            if answer.status != 200:
                raise RuntimeError(f"{url} answered {answer.status}")
        writer.close()

    await asyncio.gather(
        *(
            post(url, turns[number :: len(receivers)])
            for number, url in enumerate(receivers)
        )
    )
    return sent


def quantiles(seconds: Iterable[float]) -> tuple[float, float, float]:
    """Return median, 99th percentile and maximum, in milliseconds."""
    ordered = sorted(seconds)
    if not ordered:
        return (math.nan,) * 3
    last = len(ordered) - 1
    return (
        ordered[last // 2] * 1000,
        ordered[math.ceil(last * 0.99)] * 1000,
        ordered[last] * 1000,
    )
