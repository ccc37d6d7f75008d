# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The line of one job in the manifest of a batch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runqy_delivery.wire import COMPLETED, FAILED
from runqy_provider.errors import BadDelivery
from runqy_provider.models import Reference

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

#: Bytes that are read at a time.
PIECE = 64 * 1024

#: The longest line, in bytes: more than any payload or result in a manifest has.
LONGEST = 64 * 1024 * 1024


def lines_of(stream: BinaryIO) -> Iterator[bytes]:
    """Yield the lines of a stream, without their ends.

    Some libraries return pieces instead of lines, or close a stream when its end was
    read.

    Raises:
        ValueError: A line has more than LONGEST bytes.
    """
    begun: list[bytes] = []
    size = 0
    while piece := stream.read(PIECE):
        first, *others = piece.split(b"\n")
        begun.append(first)
        size += len(first)
        if size > LONGEST:
            raise ValueError(f"A line has more than {LONGEST:,} bytes.")
        if others:
            yield b"".join(begun)
            *whole, rest = others
            yield from whole
            begun, size = [rest], len(rest)
    if size:
        yield b"".join(begun)


@dataclass(frozen=True)
class BatchResult:
    """The outcome of one job of a batch.

    Attributes:
        index: Number of the job, from 0: that of its payload.
        delivery_id: Our id of its delivery.
        value: The result, if it is JSON and not large.
        reference: Otherwise where it is; ``RunqyResultHook.read`` opens it.
        error: Why the job failed; None if it completed.
    """

    index: int
    delivery_id: str
    value: Any = None
    reference: Reference | None = None
    error: str | None = None

    @property
    def status(self) -> str:
        """``completed`` or ``failed``."""
        return COMPLETED if self.error is None else FAILED

    def to_line(self) -> bytes:
        """Return the line of the manifest."""
        line: dict[str, Any] = {
            "index": self.index,
            "delivery_id": self.delivery_id,
            "status": self.status,
        }
        if self.error is not None:
            line["error"] = self.error
        elif self.reference is not None:
            line["reference"] = self.reference.to_xcom()
        else:
            line["value"] = self.value
        return json.dumps(line, separators=(",", ":")).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> BatchResult:
        """Read a line of a manifest.

        Raises:
            BadDelivery: It is not a line of a manifest.
        """
        try:
            fields = json.loads(line)
            reference = fields.get("reference")
            return cls(
                fields["index"],
                fields["delivery_id"],
                fields.get("value"),
                None if reference is None else Reference.from_xcom(reference),
                fields.get("error"),
            )
        except (ValueError, KeyError, AttributeError) as error:
            raise BadDelivery(
                f"This is not a line of the manifest of a batch: {line[:200]!r} "
                f"({error!r}). Is it a reference to a single result?"
            ) from error


def results_in(
    manifest: BinaryIO, first: int = 0, last: int | None = None
) -> Iterator[BatchResult]:
    """Yield the results in a manifest, in the order of their payloads.

    Args:
        manifest: The manifest; it is read line by line.
        first: Number of the first job that is wanted.
        last: Number of the last one; None: up to the end.

    Raises:
        BadDelivery: It is not the manifest of a batch, or is damaged.
    """
    for number, line in enumerate(lines_of(manifest)):
        if last is not None and number > last:
            return
        if number < first:
            continue
        result = BatchResult.from_line(line)
        if result.index != number:
            raise BadDelivery(
                f"Line {number} (from 0) of the manifest of a batch is that of job "
                f"{result.index}: the manifest is damaged."
            )
        yield result
