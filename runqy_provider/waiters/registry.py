# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""One waiter per place in each event loop; a triggerer has one event loop."""

from __future__ import annotations

import asyncio
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from runqy_provider.waiters.waiter import Waiter

_waiters: weakref.WeakKeyDictionary[
    asyncio.AbstractEventLoop, dict[Hashable, Waiter]
] = weakref.WeakKeyDictionary()


def shared_waiter(place: Hashable, make: Callable[[], Waiter]) -> Waiter:
    """Return the running loop's waiter for a place, made by ``make`` if need be.

    Args:
        place: What tells places apart; waits of equal places share a waiter.
        make: Called for the first wait of a place.
    """
    waiters = _waiters.setdefault(asyncio.get_running_loop(), {})
    if place not in waiters:
        for stale in [key for key, waiter in waiters.items() if waiter.is_idle]:
            del waiters[stale]
        waiters[place] = make()
    return waiters[place]


async def close_waiters() -> None:
    """Close all waiters of the running loop; for loops that end, as in a worker."""
    for waiter in _waiters.pop(asyncio.get_running_loop(), {}).values():
        await waiter.aclose()
