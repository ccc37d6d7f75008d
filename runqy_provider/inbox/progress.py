# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""How far a job is, by its own newest word."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runqy_delivery import Delivery

#: The longest text that is kept; it is for people, and for every look.
LONGEST_TEXT = 500


@dataclass(frozen=True)
class Progress:
    """The newest progress message.

    Attributes:
        at: When it came, in seconds since 1970.
        fraction: How much is done, from 0 to 1; None where the task code did not say.
        text: What is being done.
    """

    at: float
    fraction: float | None = None
    text: str | None = None

    def __str__(self) -> str:
        share = "" if self.fraction is None else f"{self.fraction:.0%}"
        return " ".join(part for part in (share, self.text) if part) or "alive"

    @classmethod
    def of(cls, delivery: Delivery) -> Progress:
        """Return what a progress message says, cut to what is kept."""
        fraction = delivery.fraction
        return cls(
            at=round(time.time(), 3),
            fraction=None if fraction is None else min(max(float(fraction), 0.0), 1.0),
            # One line: it goes to logs, where a line break could forge another.
            text=" ".join((delivery.text or "")[:LONGEST_TEXT].split()) or None,
        )

    @classmethod
    def from_json(cls, text: bytes) -> Progress:
        """Read it as it was kept."""
        return cls(**json.loads(text))

    def to_json(self) -> bytes:
        """Return it as it is kept."""
        return json.dumps(vars(self)).encode()
