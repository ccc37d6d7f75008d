# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""What a wait ends with, and where a waiter looks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from runqy_provider.errors import RunqyError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Hashable, Mapping

    from runqy_provider.waiters.waiter import Waiter


@dataclass(frozen=True)
class Arrival:
    """A final delivery has come.

    Attributes:
        status: ``completed`` or ``failed``.
        where: Where to read it: ``inbox://conn_id/delivery_id`` or ``s3://bucket/key``.
        delivered_at: When it came, in seconds since 1970.
    """

    status: str
    where: str
    delivered_at: float


@dataclass(frozen=True)
class News:
    """Something about a wait that goes on.

    Attributes:
        words: For the log of the waiting task; empty: nothing to say.
        said_at: For the task code's own words: when they came, by the clock of whoever
            took them. None for what was seen of the job from outside.
        has_begun: Whether the job was seen to run (True) or to wait for a worker
            (False); None where neither was seen.
    """

    words: str = ""
    said_at: float | None = None
    has_begun: bool | None = None

    @property
    def is_progress(self) -> bool:
        """True for the task code's own words."""
        return self.said_at is not None


Answer = Arrival | RunqyError | News


class Source(Protocol):
    """One place where deliveries arrive: an inbox, an object store, a table.

    A wait is known by an address that the source understands. ``look`` is asked for
    all waits at once. An error among its answers ends the waits of that address,
    and news are told to them;
    ``SinkUnavailable`` raised means that the source is away and is tried again.
    After ``aclose`` a source may be used again: it opens what it needs when needed.
    """

    async def look(self, addresses: Collection[str]) -> Mapping[str, Answer]:
        """Return those that have arrived, and those that never will."""
        ...

    def hints(self) -> AsyncIterator[str | None]:
        """Yield addresses worth a look now; None means all of them.

        The end of the iterator says that this source has no hints to give.
        """
        ...

    async def aclose(self) -> None:
        """Let go of connections."""
        ...


@dataclass(frozen=True)
class Place:
    """Where a wait looks.

    Attributes:
        key: Equal for waits that can share a waiter.
        make: Makes that waiter.
        address: What the waiter knows this wait by.
        is_essential: True where nothing can come if this place is at fault; False for
            a place that only says earlier what another one holds.
        moves: True where what came is only moved to another place, which is to be
            looked at again afterwards.
    """

    key: Hashable
    make: Callable[[], Waiter]
    address: str
    is_essential: bool = True
    moves: bool = False
