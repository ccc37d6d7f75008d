# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The lines of a stream of bytes, from any library."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
