# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Values that are loaded in the background, so that nobody waits for a slow one."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

V = TypeVar("V")


class LatestValues(Generic[V]):
    """The latest value of each key.

    However many ask for a value, it is loaded once at a time.

    Args:
        ttl: Seconds after which a value is loaded again.
        wait_limit: Seconds that a caller waits for a value that is being loaded.
    """

    def __init__(self, ttl: float, wait_limit: float) -> None:
        self._ttl = ttl
        self._wait_limit = wait_limit
        self._values: dict[str, tuple[float, V]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def get(self, key: str, load: Callable[[], Awaitable[V]]) -> V | None:
        """Return the latest value of a key; None where the first is being loaded.

        Args:
            key: What the value is of.
            load: Makes the value.

        Raises:
            Exception: What ``load`` raised.
        """
        expires, value = self._values.get(key, (0.0, None))
        if time.monotonic() < expires:
            return value
        task = self._tasks.get(key)
        if task is None:
            task = asyncio.create_task(self._load(key, load))
            self._tasks[key] = task
        done, _ = await asyncio.wait({task}, timeout=self._wait_limit)
        if done:
            task.result()
        return self._values.get(key, (0.0, value))[1]

    def keep_only(self, keys: Collection[str]) -> None:
        """Drop the values of all other keys."""
        for key in self._values.keys() - set(keys):
            del self._values[key]

    async def aclose(self) -> None:
        """Stop what is being loaded."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _load(self, key: str, load: Callable[[], Awaitable[V]]) -> None:
        try:
            value = await load()
            self._values[key] = (time.monotonic() + self._ttl, value)
        finally:
            del self._tasks[key]
