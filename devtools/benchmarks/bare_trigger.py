# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The least that could wait for a message: one subscription, one future per wait.

It is the floor of a wait by Redis: it looks at no state, so it misses what was
published before it began or while its connection was broken.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent
from redis.asyncio import Redis

from devtools.benchmarks.servers import CONN_ID
from runqy_provider.inbox import keys

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

#: Variable that names its Redis.
REDIS_URL = "BENCHMARK_REDIS_URL"

_waits: dict[str, asyncio.Future[str]] = {}
_subscriptions: list[asyncio.Task[None]] = []


class BareTrigger(BaseTrigger):
    """Waits for a name that is published on the channel of the inbox."""

    def __init__(self, name: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # Airflow's
        self.name = name

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the name."""
        return f"{type(self).__module__}.{type(self).__name__}", {"name": self.name}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait for it."""
        if not _subscriptions:
            _subscriptions.append(asyncio.create_task(_listen()))
        future = _waits[self.name] = asyncio.get_running_loop().create_future()
        payload = {"delivery_id": await future}
        yield TriggerEvent(payload)  # type: ignore[no-untyped-call] # Airflow's


async def _listen() -> None:
    async with Redis.from_url(os.environ[REDIS_URL]).pubsub() as subscription:
        await subscription.subscribe(keys.arrivals(CONN_ID))
        async for message in subscription.listen():
            if message["type"] == "message":
                name = message["data"].decode()
                future = _waits.pop(name, None)
                if future is not None:
                    future.set_result(name)
