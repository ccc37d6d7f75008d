# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Exponential back-off for loops that do more between two tries than to sleep.

Where a call is simply repeated, tenacity does it; see ``hooks/runqy.py``.
"""

from __future__ import annotations

import itertools
import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


def backoff_delays(first: float, longest: float) -> Iterator[float]:
    """Yield delays in seconds: each twice the one before, capped, with jitter."""
    for n in itertools.count():
        limit = min(first * 2 ** min(n, 10), longest)
        yield limit * random.uniform(0.5, 1)  # noqa: S311 - not for secrets
