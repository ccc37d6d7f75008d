# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""What a waiter polls, and what a poll returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from runqy_provider.errors import RunqyError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Mapping


@dataclass(frozen=True)
class Arrival:
    """A final delivery has arrived.

    Attributes:
        status: ``completed`` or ``failed``.
        result_uri: Where the delivery is: ``inbox://conn_id/delivery_id``,
            ``s3://bucket/key``, and so on.
        delivered_at: When it arrived, in seconds since 1970.
    """

    status: str
    result_uri: str
    delivered_at: float


@dataclass(frozen=True)
class StatusUpdate:
    """The state of a job that has not delivered yet.

    Attributes:
        message: For the log of the waiting task; empty: there is nothing to log.
        reported_at: For progress that the task code reported: when the receiver took
            it, in seconds since 1970. None for what was observed from outside.
        has_started: True if the job was seen to run, False if it was seen to wait for
            a worker, None if neither was seen.
        refusal: Which delivery of the job was refused, by whom, and why; empty: none
            was. It does not end the wait: a later delivery may be accepted.
    """

    message: str = ""
    reported_at: float | None = None
    has_started: bool | None = None
    refusal: str = ""

    @property
    def is_progress(self) -> bool:
        """Whether the task code itself reported this."""
        return self.reported_at is not None


PollResult = Arrival | RunqyError | StatusUpdate


class Source(Protocol):
    """One place where deliveries arrive: an inbox, a bucket, a table.

    Each wait has a key that the source understands: a delivery id, the key of an
    object, an id of a row. A source may be used again after ``aclose``: it opens its
    connections when it needs them.
    """

    async def poll(self, keys: Collection[str]) -> Mapping[str, PollResult]:
        """Look for all of these waits at once.

        Returns:
            By key: an Arrival, which ends the wait; an error, which ends it, too; or a
            StatusUpdate. Keys about which nothing is known are left out.

        Raises:
            SinkUnavailable: The source is unavailable; it will be polled again.
        """

    def hints(self) -> AsyncIterator[str | None]:
        """Yield keys that should be polled now; None means all keys.

        The iterator of a source without hints ends at once.
        """

    async def aclose(self) -> None:
        """Close the connections."""
