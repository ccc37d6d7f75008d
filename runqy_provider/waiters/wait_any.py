# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Wait for one delivery at all the places where it may arrive."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any

from runqy_provider.errors import JobFailed, JobVanished, RunqyError
from runqy_provider.waiters.backoff import pauses
from runqy_provider.waiters.liveness import Vigil
from runqy_provider.waiters.registry import shared_waiter
from runqy_provider.waiters.source import News

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runqy_provider.waiters.source import Arrival, Place
    from runqy_provider.waiters.waiter import Waiter

log = logging.getLogger(__name__)

#: Seconds between two verdicts on a job whose delivery may lie where nobody can look.
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 10.0


async def wait_for_arrival(
    places: Sequence[Place],
    *,
    deadline: float,
    vigil: Vigil | None = None,
    watch: Place | None = None,
) -> Arrival | None:
    """Return the first arrival, or None at the deadline or after too long a silence.

    Args:
        places: Where to look; their waiters are shared with all other waits.
        deadline: When to give up, in seconds since 1970; every place gets one look.
        vigil: Hears what is new meanwhile, and says how long silence is borne.
        watch: Where the job itself is watched.

    Raises:
        RunqyError: An essential place says that it will never come, or the watch says
            that its job has ended, and it is at none of the others.
    """
    vigil = vigil or Vigil()
    is_brief = deadline <= time.time() and not any(place.moves for place in places)
    for pause in pauses(FIRST_PAUSE, LONGEST_PAUSE):
        waits = {
            _wait(place, deadline, vigil): place
            for place in (*places, *([watch] if watch else ()))
        }
        verdict: RunqyError | None = None
        try:
            arrival = await _first(waits)
        except RunqyError as error:
            arrival, verdict = None, error
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
        if arrival is not None or (verdict is None and is_brief):
            return arrival
        # It may have come just before, and nobody said so: one last look.
        arrival = await _last_look(places)
        if arrival is not None or verdict is None:
            return arrival
        trouble = looks_at(places)["trouble"]
        is_watch = isinstance(verdict, (JobVanished, JobFailed)) and watch is not None
        if not (is_watch and trouble) or time.time() >= deadline:
            raise verdict
        # It may lie where nobody can look just now.
        vigil.hear(News(f"{verdict} But not all places could be looked at: {trouble}"))
        await asyncio.sleep(min(pause, max(0.0, deadline - time.time())))
    raise AssertionError  # pragma: no cover - the pauses never end


async def _first(waits: dict[asyncio.Future[Arrival | None], Place]) -> Arrival | None:
    pending = set(waits)
    while pending:
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        arrivals = [wait.result() for wait in done if wait.exception() is None]
        for arrival in arrivals:
            if arrival is not None:
                return arrival
        for wait in done:
            error = wait.exception()
            if error is None:
                continue
            if waits[wait].is_essential or not isinstance(error, RunqyError):
                raise error
            log.warning("Waiting goes on without one place: %s", error)
    return None


async def _last_look(places: Sequence[Place]) -> Arrival | None:
    # First where things are moved from, then where they are moved to: looked at side by
    # side, one that is moved meanwhile would be seen in neither.
    for moves in (True, False):
        looks = [_look(place) for place in places if place.moves is moves]
        for arrival in await asyncio.gather(*looks):
            if arrival is not None:
                return arrival
    return None


async def _look(place: Place) -> Arrival | None:
    try:
        return await _wait(place, 0.0, Vigil())
    except RunqyError:
        return None  # what this place has to say was heard before


def _wait(
    place: Place, deadline: float, vigil: Vigil
) -> asyncio.Future[Arrival | None]:
    waiter = shared_waiter(place.key, place.make)
    return asyncio.ensure_future(
        waiter.wait(place.address, deadline=deadline, vigil=vigil)
    )


def looks_at(places: Sequence[Place]) -> dict[str, Any]:
    """Return when these places were last looked at, and what kept us from it.

    Returns:
        ``last_look`` in seconds since 1970, None if no look ever succeeded; and
        ``trouble`` in words, empty where there is none; ``unseen`` is that of places
        without which nobody can say that nothing has come.
    """
    waiters = [shared_waiter(place.key, place.make) for place in places]
    essential = [w for w, at in zip(waiters, places, strict=True) if at.is_essential]
    return {
        "last_look": max((w.last_look for w in waiters if w.last_look), default=None),
        "trouble": _troubles(waiters),
        "unseen": _troubles(essential),
    }


def _troubles(waiters: Sequence[Waiter]) -> str:
    return " ".join(waiter.trouble for waiter in waiters if waiter.trouble)
