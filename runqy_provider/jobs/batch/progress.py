# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""How far a batch is, as plain JSON: the next process continues from there."""

from __future__ import annotations

import base64
import zlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from runqy_provider.models import JobRef

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from typing_extensions import Self

#: How many empty bytes of a set are skipped in one step.
_STRIDE = 512

#: How many reasons of failures are kept, and the longest of them, in characters.
MOST_REASONS = 20
LONGEST_REASON = 450

_SETS = ("outstanding", "failed", "again")


class IndexSet:
    """A set of whole numbers from 0: one bit each.

    The text is an argument of a trigger in Airflow's database. It has 17 KB for a
    random half of 100,000 jobs, and a hundred bytes for a few ranges.

    Args:
        members: The first members.
    """

    def __init__(self, members: Iterable[int] = ()) -> None:
        self._bits = bytearray()
        self._count = 0
        for member in members:
            self.add(member)

    def __len__(self) -> int:
        return self._count

    def __contains__(self, index: int) -> bool:
        byte = index >> 3
        return byte < len(self._bits) and bool(self._bits[byte] >> (index & 7) & 1)

    def __iter__(self) -> Iterator[int]:
        bits = self._bits
        for start in range(0, len(bits), _STRIDE):
            if not any(bits[start : start + _STRIDE]):
                continue
            for byte in range(start, min(start + _STRIDE, len(bits))):
                value = bits[byte]
                for bit in range(8) if value else ():
                    if value >> bit & 1:
                        yield byte * 8 + bit

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, IndexSet):
            return NotImplemented
        return list(self) == list(other)

    __hash__ = None  # type: ignore[assignment] # it changes

    def add(self, index: int) -> None:
        byte = index >> 3
        if byte >= len(self._bits):
            self._bits.extend(bytes(byte + 1 - len(self._bits)))
        if index not in self:
            self._bits[byte] |= 1 << (index & 7)
            self._count += 1

    def discard(self, index: int) -> None:
        """Remove a number, if it is in the set."""
        if index in self:
            self._bits[index >> 3] &= ~(1 << (index & 7))
            self._count -= 1

    def copy(self) -> IndexSet:
        other = IndexSet()
        other._bits, other._count = self._bits.copy(), self._count
        return other

    def to_text(self) -> str:
        return base64.b64encode(zlib.compress(bytes(self._bits), 9)).decode()

    @classmethod
    def from_text(cls, text: str) -> IndexSet:
        """Read a set that ``to_text`` has written."""
        indexes = cls()
        indexes._bits = bytearray(zlib.decompress(base64.b64decode(text)))
        indexes._count = sum(byte.bit_count() for byte in indexes._bits)
        return indexes


@dataclass
class BatchProgress:
    """How far a batch is. Job number *n* runs the payload number *n*, from 0.

    Attributes:
        batch_id: Our id of the batch; the ids of its deliveries begin with it.
        sink: URI of the sink.
        runqy_queue: Full name of the queue.
        chooses_id: Whether a job has the id of its delivery: with the transport
            ``redis``.
        total: How many jobs it has.
        digest: Digest of the payloads.
        expires: Until when its deliveries are accepted, in seconds since 1970.
        enqueued: How many jobs were enqueued: those with a smaller number.
        outstanding: Enqueued jobs that have not delivered yet.
        failed: Jobs that have failed.
        again: Failed jobs of an earlier attempt that must be enqueued again.
        rounds: The jobs that run a second time, a third time, and so on.
        reasons: Why some of them failed, by their numbers.
        failed_before: Only in the trigger's copy: how many jobs had failed when it was
            made.
        again_before: Likewise, how many had to be enqueued again.
    """

    batch_id: str
    sink: str
    runqy_queue: str
    chooses_id: bool
    total: int
    digest: str
    expires: float
    enqueued: int = 0
    outstanding: IndexSet = field(default_factory=IndexSet)
    failed: IndexSet = field(default_factory=IndexSet)
    again: IndexSet = field(default_factory=IndexSet)
    rounds: list[IndexSet] = field(default_factory=list)
    reasons: dict[int, str] = field(default_factory=dict)
    failed_before: int = 0
    again_before: int = 0

    @property
    def failures(self) -> int:
        """How many jobs have failed."""
        return self.failed_before + len(self.failed)

    @property
    def completed(self) -> int:
        """How many jobs have delivered a result."""
        others = len(self.outstanding) + self.failures + self._again
        return self.enqueued - others

    @property
    def left(self) -> int:
        """How many jobs are still to be enqueued."""
        return self.total - self.enqueued + self._again

    @property
    def _again(self) -> int:
        return self.again_before + len(self.again)

    def in_flight(self) -> BatchProgress:
        """Return what a trigger needs: the jobs in flight, and how many others.

        The copy is small, as databases limit the arguments of a trigger.
        """
        return replace(
            self,
            outstanding=self.outstanding.copy(),
            rounds=[
                IndexSet(index for index in self.outstanding if index in each)
                for each in self.rounds
            ],
            failed=IndexSet(),
            again=IndexSet(),
            reasons={},
            failed_before=self.failures,
            again_before=self._again,
        )

    def update(self, in_flight: BatchProgress) -> None:
        """Record what has ended of the jobs that were in flight.

        Args:
            in_flight: What ``in_flight`` has returned, after a wait.
        """
        for index in list(self.outstanding):
            if index not in in_flight.outstanding:
                is_failed = index in in_flight.failed
                reason = in_flight.reasons.get(index, "") if is_failed else None
                self.on_ended(index, reason)

    def to_enqueue(self) -> Iterator[int]:
        """Yield the numbers of the jobs that are still to be enqueued."""
        yield from list(self.again)
        yield from range(self.enqueued, self.total)

    def on_enqueued(self, index: int) -> None:
        """Record that a job is enqueued, or is about to be."""
        if index in self.again:
            self.again.discard(index)
        else:
            self.enqueued = index + 1
        self.outstanding.add(index)

    def on_refused(self, indexes: Iterable[int], enqueued: int) -> None:
        """Record that jobs for which ``on_enqueued`` was called are not enqueued.

        Args:
            indexes: Their numbers.
            enqueued: What ``enqueued`` was before that.
        """
        for index in indexes:
            self.outstanding.discard(index)
            if index < enqueued:
                self.again.add(index)
        self.enqueued = enqueued

    def on_ended(self, index: int, failure: str | None = None) -> None:
        """Record that a job has ended.

        Args:
            index: Its number.
            failure: Why it failed; None if it has delivered a result.
        """
        self.outstanding.discard(index)
        if failure is None:
            return
        self.failed.add(index)
        if failure and (index in self.reasons or len(self.reasons) < MOST_REASONS):
            self.reasons[index] = failure[:LONGEST_REASON]

    def on_found(self, index: int) -> None:
        """Record that a job which counted as failed has delivered a result."""
        self.failed.discard(index)
        self.reasons.pop(index, None)

    def run_failed_again(self) -> None:
        """Let the jobs that have failed be enqueued once more."""
        for index in self.failed:
            number = self._round(index)
            if number == len(self.rounds):
                self.rounds.append(IndexSet())
            self.rounds[number].add(index)
            self.again.add(index)
        self.failed = IndexSet()
        self.reasons.clear()

    def delivery_id(self, index: int) -> str:
        # All numbers have the same length, so that no id is a prefix of another.
        name, number = f"{self.batch_id}-{index:07d}", self._round(index)
        return f"{name}-{number}" if number else name

    def _round(self, index: int) -> int:
        """Return how often a job was to be enqueued again."""
        for number in range(len(self.rounds), 0, -1):
            if index in self.rounds[number - 1]:
                return number
        return 0

    def job(self, index: int) -> JobRef:
        delivery_id = self.delivery_id(index)
        job_id = delivery_id if self.chooses_id else None
        return JobRef(delivery_id, self.sink, job_id, self.runqy_queue)

    def __str__(self) -> str:
        parts = [
            f"{self.completed:,} of {self.total:,} jobs completed",
            f"{self.failures:,} failed",
            f"{len(self.outstanding):,} in flight",
        ]
        if self.left:
            parts.append(f"{self.left:,} to enqueue")
        return ", ".join(parts)

    def to_json(self) -> dict[str, Any]:
        record = {
            **vars(self),
            "reasons": {str(n): text for n, text in self.reasons.items()},
        }
        record["rounds"] = [each.to_text() for each in self.rounds]
        for name in _SETS:
            record[name] = record[name].to_text()
        return record

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """Read progress that ``to_json`` has returned.

        Raises:
            KeyError: The record lacks a field.
        """
        known = {name: record[name] for name in cls.__dataclass_fields__}
        known |= {name: IndexSet.from_text(record[name]) for name in _SETS}
        known["rounds"] = [IndexSet.from_text(each) for each in record["rounds"]]
        known["reasons"] = {int(n): text for n, text in record["reasons"].items()}
        return cls(**known)
