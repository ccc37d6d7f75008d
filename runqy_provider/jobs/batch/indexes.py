# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""A set of the indexes of jobs, which is also small as text."""

from __future__ import annotations

import base64
import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

#: How many empty bytes of a set are skipped in one step.
_STRIDE = 512


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
        """Add a number."""
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
        """Return a set with the same members."""
        other = IndexSet()
        other._bits, other._count = self._bits.copy(), self._count
        return other

    def to_text(self) -> str:
        """Return the set as text."""
        return base64.b64encode(zlib.compress(bytes(self._bits), 9)).decode()

    @classmethod
    def from_text(cls, text: str) -> IndexSet:
        """Read a set that ``to_text`` has written."""
        indexes = cls()
        indexes._bits = bytearray(zlib.decompress(base64.b64decode(text)))
        indexes._count = sum(byte.bit_count() for byte in indexes._bits)
        return indexes
