# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Pauses between tries."""

from __future__ import annotations

import itertools
import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


def pauses(first: float, longest: float) -> Iterator[float]:
    """Yield seconds: doubling, capped, each with jitter."""
    for n in itertools.count():
        limit = min(first * 2 ** min(n, 10), longest)
        yield limit * random.uniform(0.5, 1)  # noqa: S311 - not for secrets
