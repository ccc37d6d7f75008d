# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Caches whose entries expire: of clients, database engines and connections.

An entry is loaded only once if many ask for it at the same time. If loading it again
fails, the expired value stays in use: many waits depend on it, and Airflow may be
unavailable for a moment.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
import weakref
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

log = logging.getLogger(__name__)

V = TypeVar("V")


class ExpiringDict(Generic[V]):
    """A dict whose entries expire; the oldest entry is dropped if it is full.

    Args:
        max_size: Largest number of entries; None: no limit.
    """

    def __init__(self, max_size: int | None = None) -> None:
        self._max_size = math.inf if max_size is None else max_size
        self._entries: dict[str, tuple[float, V]] = {}

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    def get(self, key: str) -> V | None:
        """Return the value of a key; None if there is none, or it has expired."""
        expires, value = self._entries.get(key, (0.0, None))
        return value if time.monotonic() < expires else None

    def get_expired(self, key: str) -> V | None:
        """Return the value of a key, even if it has expired."""
        return self._entries.get(key, (0.0, None))[1]

    def age_left(self, key: str) -> float:
        """Return the seconds until an entry expires; negative if it has expired."""
        return self._entries.get(key, (-math.inf, None))[0] - time.monotonic()

    def set(self, key: str, value: V, ttl: float) -> None:
        """Keep a value for some seconds."""
        if key not in self._entries:
            while len(self._entries) >= self._max_size:
                del self._entries[next(iter(self._entries))]
        self._entries[key] = (time.monotonic() + ttl, value)

    def drop_expired(self, seconds: float) -> None:
        """Drop the entries that expired more than some seconds ago."""
        oldest = time.monotonic() - seconds
        self._entries = {k: v for k, v in self._entries.items() if v[0] >= oldest}

    def values(self) -> list[V]:
        """Return all values, also those that have expired."""
        return [value for _, value in self._entries.values()]

    def clear(self) -> None:
        self._entries.clear()


class TtlCache(Generic[V]):
    """Values that threads share; each is reloaded after ``ttl`` seconds.

    Args:
        ttl: Seconds after which a value is loaded again.
        retry_after: Seconds after which a failed reload is tried again.
    """

    def __init__(self, ttl: float, retry_after: float) -> None:
        self._ttl = ttl
        self._retry_after = retry_after
        self._values: ExpiringDict[V] = ExpiringDict()
        self._lock = threading.Lock()

    def get(self, key: str, load: Callable[[V | None], V]) -> V:
        """Return the value of a key; blocks while it is loaded.

        Args:
            key: Key of the value, in plain text: warnings name it.
            load: Makes the value; its argument is the expired one, None at first.

        Raises:
            Exception: What ``load`` raised, if there is no expired value to use.
        """
        with self._lock:
            value = self._values.get(key)
            if value is None:
                value, ttl = self._load(key, self._values.get_expired(key), load)
                self._values.set(key, value, ttl)
            return value

    def values(self) -> list[V]:
        """Return all values, also those that have expired."""
        with self._lock:
            return self._values.values()

    def clear(self) -> None:
        """Drop all values, so that each is loaded at its next use."""
        with self._lock:
            self._values.clear()

    def _load(
        self, key: str, expired: V | None, load: Callable[[V | None], V]
    ) -> tuple[V, float]:
        """Return the new value, or the expired one, and for how long it is valid."""
        try:
            return load(expired), self._ttl
        except Exception as error:
            if expired is None:
                raise
            # Only the type: the message of a connection that cannot be read may quote
            # its password.
            log.warning(
                "%s could not be loaded again (%s). The one loaded before stays in "
                "use; will retry in %.0f s.",
                key,
                type(error).__name__,
                self._retry_after,
            )
            return expired, self._retry_after


class AsyncTtlCache(Generic[V]):
    """Values that coroutines share; concurrent callers wait for one load.

    A load continues if its first caller is cancelled: others may wait for it.

    Args:
        max_stale: Seconds for which an expired value is known while it is loaded again.
    """

    def __init__(self, max_stale: float = 0) -> None:
        self._max_stale = max_stale
        self._values: ExpiringDict[V] = ExpiringDict()
        # A task belongs to one event loop; tests and workers use several in turn.
        self._tasks: weakref.WeakKeyDictionary[
            asyncio.AbstractEventLoop, dict[str, asyncio.Task[V]]
        ] = weakref.WeakKeyDictionary()

    async def get(self, key: str, load: Callable[[], Awaitable[tuple[V, float]]]) -> V:
        """Return the value of a key.

        Args:
            key: The key.
            load: Returns the value and the seconds for which it is valid.

        Raises:
            Exception: What ``load`` raised.
        """
        value = self._values.get(key)
        return await asyncio.shield(self._task(key, load)) if value is None else value

    async def get_soon(
        self,
        key: str,
        load: Callable[[], Awaitable[tuple[V, float]]],
        wait_limit: float,
    ) -> V | None:
        """Return the value of a key, or the expired one if a load takes long.

        Args:
            key: The key.
            load: Returns the value and the seconds for which it is valid.
            wait_limit: Seconds to wait for a load, which continues after that.

        Returns:
            None if there is none that expired less than ``max_stale`` seconds ago.

        Raises:
            Exception: What ``load`` raised.
        """
        value = self._values.get(key)
        if value is not None:
            return value
        done, _ = await asyncio.wait({self._task(key, load)}, timeout=wait_limit)
        for task in done:
            return task.result()
        is_known = -self._values.age_left(key) < self._max_stale
        return self._values.get_expired(key) if is_known else None

    def clear(self) -> None:
        self._values.clear()

    async def aclose(self) -> None:
        """Stop what is being loaded in this event loop."""
        tasks = list(self._tasks.get(asyncio.get_running_loop(), {}).values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _task(
        self, key: str, load: Callable[[], Awaitable[tuple[V, float]]]
    ) -> asyncio.Task[V]:
        tasks = self._tasks.setdefault(asyncio.get_running_loop(), {})
        if key not in tasks:
            tasks[key] = asyncio.create_task(self._load(key, load))
            tasks[key].add_done_callback(lambda _: tasks.pop(key))
        return tasks[key]

    async def _load(
        self, key: str, load: Callable[[], Awaitable[tuple[V, float]]]
    ) -> V:
        value, ttl = await load()
        self._values.drop_expired(self._max_stale)
        self._values.set(key, value, ttl)
        return value
