# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The table of a benchmark: printed, written as Markdown, and stored as JSON."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tabulate import tabulate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from typing_extensions import Self

#: A text, a number, or None if it does not apply.
Cell = str | int | float | None


@dataclass
class Table:
    """Rows of figures.

    Attributes:
        name: Its unique name, for plots and the sizing.
        title: What was measured.
        heads: The name of each column, with its unit.
        rows: The rows, each with as many cells as there are heads.
        note: What a reader must know beside it.
    """

    name: str
    title: str
    heads: Sequence[str]
    rows: list[list[Cell]] = field(default_factory=list)
    note: str = ""

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """Return the table that ``vars`` was stored of."""
        return cls(**stored)

    def add(self, *cells: Cell) -> None:
        """Add a row, and print it at once, so that a person sees the progress."""
        if len(cells) != len(self.heads):
            raise ValueError(f"{self.name} has columns {self.heads}, not {cells}")
        self.rows.append(list(cells))
        print("  ", *(_text(cell) for cell in cells), file=sys.stderr, flush=True)

    def records(self) -> list[dict[str, Any]]:
        """Return each row as a dict, by head."""
        return [dict(zip(self.heads, row, strict=True)) for row in self.rows]

    def to_markdown(self) -> str:
        """Return the table with aligned columns, its title above."""
        is_number = [
            any(isinstance(row[n], int | float) for row in self.rows)
            for n in range(len(self.heads))
        ]
        text = tabulate(
            [[_text(cell) for cell in row] for row in self.rows],
            self.heads,
            tablefmt="pipe",
            disable_numparse=True,
            colalign=["right" if number else "left" for number in is_number],
        )
        note = f"\n{self.note}\n" if self.note else ""
        return f"### {self.title}\n\n{text}\n{note}"


def _text(cell: Cell) -> str:
    if cell is None:
        return ""
    if isinstance(cell, float):
        digits = 0 if abs(cell) >= 100 else 1 if abs(cell) >= 10 else 2
        return f"{cell:,.{digits}f}"
    return f"{cell:,}" if isinstance(cell, int) else cell
