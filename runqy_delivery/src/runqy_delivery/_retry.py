# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""For how long, and at what pauses, a delivery is tried again."""

from __future__ import annotations

import logging
import os
import random
import time
from typing import TYPE_CHECKING, Any, Callable, TypeVar

from runqy_delivery.errors import DeliveryUndeliverable

if TYPE_CHECKING:
    from collections.abc import Iterator

log = logging.getLogger("runqy_delivery")

T = TypeVar("T")

#: Seconds for which a delivery is tried again; the environment may say otherwise.
RETRY_FOR = 300.0
RETRY_FOR_VARIABLE = "RUNQY_DELIVERY_RETRY_FOR"

FIRST_DELAY = 0.5
LONGEST_DELAY = 30.0


def retry_budget() -> float:
    """Return for how many seconds to try, from the environment or the default."""
    text = os.environ.get(RETRY_FOR_VARIABLE, "")
    try:
        return max(0.0, float(text)) if text else RETRY_FOR
    except ValueError:
        log.warning("%s is not a number of seconds: %r", RETRY_FOR_VARIABLE, text)
        return RETRY_FOR


def delays() -> Iterator[float]:
    """Yield the pauses between tries: doubling, capped, each with jitter."""
    limit = FIRST_DELAY
    while True:
        # Jitter, so that workers that failed together do not come back together.
        yield random.uniform(limit / 2, limit)  # noqa: S311 - not for secrets
        limit = min(limit * 2, LONGEST_DELAY)


def asked_delay(asked: float, pause: float) -> float:
    """Return the pause where the other end asked for one, in seconds.

    Args:
        asked: What it asked for; everybody that it turned away has heard the same.
        pause: What the pause would be otherwise.
    """
    # Only ever later than asked, and spread wider where many had longer to gather.
    return asked + random.uniform(0, max(pause, asked / 4))  # noqa: S311 - not for secrets


def persist(
    what: str,
    attempt: Callable[[], T],
    transient: tuple[Any, ...],
    lasting: Callable[[Exception], bool] = lambda _error: False,
) -> T:
    """Try until it works, or the time is up.

    Args:
        what: What is tried, and where, for messages.
        attempt: Tries once.
        transient: The errors after which the same may well work.
        lasting: Says of one of those that it will come again; it is raised as it is.

    Raises:
        DeliveryUndeliverable: It did not work within the time.
    """
    end = time.monotonic() + retry_budget()
    for tries, pause in enumerate(delays(), start=1):
        try:
            return attempt()
        except transient as error:
            if lasting(error):
                raise
            trouble = f"{type(error).__name__}: {error}".strip()
            if time.monotonic() + pause > end:
                raise DeliveryUndeliverable(
                    f"{what} was tried {tries} times and did not work; last: "
                    f"{trouble} ({RETRY_FOR_VARIABLE} sets for how long it is tried)."
                ) from error
        log.warning("%s: %s; trying again in %.1f s", what, trouble, pause)
        time.sleep(pause)
    raise AssertionError  # pragma: no cover - delays() never ends
