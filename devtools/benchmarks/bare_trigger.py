# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The least that could wait for a message, as a floor for ours.

``BareTrigger`` is the floor of a wait: one subscription, one future per wait. It looks
at no state, so it misses what was published before it began or while its connection was
broken. ``BareTaskTrigger`` is the floor of a task: it waits for one message, and ends
its task.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TaskSuccessEvent, TriggerEvent
from redis.asyncio import Redis

from devtools.benchmarks.servers import CONN_ID
from runqy_provider.airflow_compat import in_thread, push_xcom
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


class BareTaskTrigger(BaseTrigger):
    """Waits for the first item of a Redis list, and ends its task with it.

    Args:
        redis_url: The Redis.
        key: The list.
        resume_at: When a worker may end the task, in seconds since 1970; None: the
            trigger ends it.
        xcom: Key of an XCom that the trigger writes before; empty: none.
    """

    def __init__(
        self, redis_url: str, key: str, resume_at: float | None, xcom: str = ""
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # Airflow's
        self.arguments = {
            "redis_url": redis_url,
            "key": key,
            "resume_at": resume_at,
            "xcom": xcom,
        }

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments."""
        return f"{type(self).__module__}.{type(self).__name__}", self.arguments

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait for it."""
        async with Redis.from_url(str(self.arguments["redis_url"])) as redis:
            found: Any = await redis.blpop([str(self.arguments["key"])])
        value, resume_at = json.loads(found[1]), self.arguments["resume_at"]
        if self.arguments["xcom"]:
            ti: Any = self.task_instance
            await in_thread(push_xcom, ti, self.arguments["xcom"], value)
        if resume_at is None:
            yield TaskSuccessEvent(xcoms={"return_value": value})
            return
        # Airflow 3.3 fails a task that is resumed before the scheduler knows that its
        # worker process has ended.
        await asyncio.sleep(float(resume_at) - time.time())
        yield TriggerEvent(value)  # type: ignore[no-untyped-call] # Airflow's


async def _listen() -> None:
    async with Redis.from_url(os.environ[REDIS_URL]).pubsub() as subscription:
        await subscription.subscribe(keys.arrivals(CONN_ID))
        async for message in subscription.listen():
            if message["type"] == "message":
                name = message["data"].decode()
                future = _waits.pop(name, None)
                if future is not None:
                    future.set_result(name)
