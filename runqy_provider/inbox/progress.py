# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The newest progress message of a job."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runqy_provider.sanitize import one_line

if TYPE_CHECKING:
    from runqy_delivery import Delivery

#: The longest text that is kept, in characters: every poll reads it.
LONGEST_TEXT = 500


@dataclass(frozen=True)
class Progress:
    """The newest progress message.

    Attributes:
        at: When it arrived, in seconds since 1970.
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
            fraction=None if fraction is None else float(min(max(fraction, 0), 1)),
            text=one_line(delivery.text or "", LONGEST_TEXT) or None,
        )

    @classmethod
    def from_json(cls, text: bytes) -> Progress:
        """Read a stored progress message, of this version or a newer one."""
        kept = json.loads(text)
        return cls(kept["at"], kept.get("fraction"), kept.get("text"))

    def to_json(self) -> bytes:
        """Return it as it is stored."""
        return json.dumps(vars(self)).encode()
