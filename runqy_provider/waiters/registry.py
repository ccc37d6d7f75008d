# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Which waiter a wait uses: one per source in each event loop."""

from __future__ import annotations

import asyncio
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from runqy_provider.waiters.waiter import Waiter

_waiters: weakref.WeakKeyDictionary[
    asyncio.AbstractEventLoop, dict[Callable[[], Waiter], Waiter]
] = weakref.WeakKeyDictionary()


@dataclass(frozen=True, slots=True)
class WaitTarget:
    """One source at which a wait looks for its delivery.

    Attributes:
        waiter_factory: Makes the waiter; waits with equal factories share one. Best a
            frozen dataclass: there may be thousands, and a closure takes more memory.
        key: What the source knows this wait by.
        is_required: True where no delivery can arrive while this source fails; False
            for a source that only notices earlier what another one holds.
        relays: True where the source only moves deliveries to another one, which must
            be polled again afterwards.
    """

    waiter_factory: Callable[[], Waiter]
    key: str
    is_required: bool = True
    relays: bool = False


def shared_waiter(factory: Callable[[], Waiter]) -> Waiter:
    """Return the running loop's waiter for a source.

    Args:
        factory: Makes the waiter for the first wait; waits with equal ones share it.
    """
    waiters = _waiters.setdefault(asyncio.get_running_loop(), {})
    known = waiters.get(factory)
    if known is None:
        for idle in [key for key, waiter in waiters.items() if waiter.is_idle]:
            del waiters[idle]
        known = waiters[factory] = factory()
    return known


async def close_waiters() -> None:
    """Close all waiters of the running loop; for loops that end, as in a worker."""
    for waiter in _waiters.pop(asyncio.get_running_loop(), {}).values():
        await waiter.aclose()
