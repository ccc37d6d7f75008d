# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Wait for one delivery at all the places where it may arrive."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from runqy_provider.waiting.registry import shared_waiter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runqy_provider.sinks.base import Place
    from runqy_provider.waiting.arrival import Arrival


async def wait_for_arrival(
    places: Sequence[Place], *, deadline: float, not_before: float = 0.0
) -> Arrival | None:
    """Return the first arrival, or None at the deadline.

    Args:
        places: Where to look; their waiters are shared with all other waits.
        deadline: When to give up, in seconds since 1970; every place gets one look.
        not_before: An arrival is kept back until then.

    Raises:
        RunqyError: One of the places says that it will never come.
    """
    waits = [
        asyncio.ensure_future(
            shared_waiter(place.key, place.make).wait(
                place.address, deadline=deadline, not_before=not_before
            )
        )
        for place in places
    ]
    try:
        for finished in asyncio.as_completed(waits):
            arrival = await finished
            if arrival is not None:
                return arrival
    finally:
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
    return None


def looks_at(places: Sequence[Place]) -> dict[str, Any]:
    """Return when these places were last looked at, and what kept us from it.

    Returns:
        ``last_look`` in seconds since 1970, None if no look ever succeeded; and
        ``trouble`` in words, empty where there is none.
    """
    waiters = [shared_waiter(place.key, place.make) for place in places]
    return {
        "last_look": max((w.last_look for w in waiters if w.last_look), default=None),
        "trouble": " ".join(w.trouble for w in waiters if w.trouble),
    }
