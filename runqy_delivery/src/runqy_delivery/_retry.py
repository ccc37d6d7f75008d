# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Retry a delivery with exponential backoff and jitter, within a time budget."""

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

#: Environment variable that sets for how many seconds a delivery is retried.
RETRY_FOR_VARIABLE = "RUNQY_DELIVERY_RETRY_FOR"

#: For how many seconds a delivery is retried where the variable is not set.
DEFAULT_RETRY_FOR = 300.0

#: Upper bound of the first delay between two tries, and of any, in seconds.
INITIAL_DELAY, MAX_DELAY = 0.5, 30.0


def retry_budget() -> float:
    """Return for how many seconds to retry, from the environment or the default."""
    text = os.environ.get(RETRY_FOR_VARIABLE, "")
    try:
        return max(0.0, float(text)) if text else DEFAULT_RETRY_FOR
    except ValueError:
        log.warning(
            "%s is not a valid number of seconds: %r; using %g",
            RETRY_FOR_VARIABLE,
            text,
            DEFAULT_RETRY_FOR,
        )
        return DEFAULT_RETRY_FOR


def delays() -> Iterator[float]:
    """Yield the delays between tries, in seconds: doubling, capped, with jitter."""
    limit = INITIAL_DELAY
    while True:
        # Jitter spreads the retries of workers that failed at the same moment.
        yield random.uniform(limit / 2, limit)  # noqa: S311 - not for secrets
        limit = min(limit * 2, MAX_DELAY)


def retry_after_delay(retry_after: float, delay: float) -> float:
    """Return the delay before the next try where the server asked for one, in seconds.

    Args:
        retry_after: What the server asked for, in seconds. It may have sent the same
            value to many workers, so their retries are spread.
        delay: The delay without the server's request, in seconds.
    """
    # Never earlier than asked. The longer the wait, the more workers end it together.
    return retry_after + random.uniform(0, max(delay, retry_after / 4))  # noqa: S311 - not for secrets


def retry_call(
    operation: str,
    call: Callable[[], T],
    retryable: tuple[Any, ...],
    is_permanent: Callable[[Exception], bool] = lambda _error: False,
) -> T:
    """Call a function until it succeeds or the retry budget is used up.

    Args:
        operation: What is tried, and where; the start of log and error messages.
        call: The function, which is called once per try.
        retryable: The exception classes after which it is called again.
        is_permanent: Returns True for such an exception that will occur again; it is
            raised unchanged.

    Raises:
        DeliveryUndeliverable: It did not succeed within the budget.
    """
    end = time.monotonic() + retry_budget()
    for tries, delay in enumerate(delays(), start=1):
        try:
            return call()
        except retryable as error:
            if is_permanent(error):
                raise
            message = f"{type(error).__name__}: {error}".strip()
            if time.monotonic() + delay > end:
                raise DeliveryUndeliverable(
                    f"{operation} failed {tries} time(s); last error: {message} "
                    f"({RETRY_FOR_VARIABLE} sets for how many seconds it is retried)."
                ) from error
        log.warning("%s failed: %s; retrying in %.1f s", operation, message, delay)
        time.sleep(delay)
    raise AssertionError  # pragma: no cover - delays() never ends
