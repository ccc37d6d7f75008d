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

#: For how many seconds a delivery is retried if the variable is not set.
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
    """Return the delay before the next try if the server asked for one, in seconds.

    Args:
        retry_after: What the server asked for, in seconds. It may have sent the same
            value to many workers, so their retries are spread.
        delay: The delay without the server's request, in seconds.
    """
    # Never earlier than asked. The longer the wait, the more workers end it together.
    return retry_after + random.uniform(0, max(delay, retry_after / 4))  # noqa: S311 - not for secrets


class TryAgain(Exception):
    """A try failed in a way that may pass; the message says how.

    Args:
        message: What went wrong.
        retry_after: After how many seconds the server wants the next try; None if it
            did not say.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


def retry_call(
    operation: str,
    call: Callable[[], T],
    retryable: tuple[Any, ...] = (),
    is_permanent: Callable[[Exception], bool] = lambda _error: False,
    *,
    advice: str = "",
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> T:
    """Call a function until it succeeds or the retry budget is used up.

    All retries of this package are made here. The budget starts at the first error,
    because one upload may take longer than the budget.

    Args:
        operation: What is tried, and where; the start of log and error messages.
        call: The function, which is called once per try.
        retryable: The exception classes after which it is called again, besides
            ``TryAgain``.
        is_permanent: Returns True for such an exception that will occur again; it is
            raised unchanged.
        advice: What to check if it never succeeds, as a sentence and a blank.
        clock: Returns monotonic seconds; for tests.
        sleep: Pauses for a number of seconds; for tests.

    Raises:
        DeliveryUndeliverable: It did not succeed within the budget.
    """
    end: float | None = None
    is_last = False
    for tries, delay in enumerate(delays(), start=1):
        try:
            return call()
        except (TryAgain, *retryable) as error:
            if is_permanent(error):
                raise
            message, wait = _message_of(error), delay
            if end is None:
                end = clock() + retry_budget()
            left = end - clock()
            if isinstance(error, TryAgain) and error.retry_after is not None:
                # A server that asks for more than is left gets one last try at the end.
                asked = retry_after_delay(error.retry_after, delay)
                wait = min(max(delay, asked), left)
            if is_last or left <= 0 or wait > left:
                raise DeliveryUndeliverable(
                    f"{operation} failed {tries} time(s); last error: {message}. "
                    f"{advice}{RETRY_FOR_VARIABLE} sets for how many seconds it is "
                    "retried."
                ) from error
        log.warning("%s failed: %s; retrying in %.1f s", operation, message, wait)
        is_last = wait == left
        sleep(wait)
    raise AssertionError  # pragma: no cover - delays() never ends


def _message_of(error: Exception) -> str:
    if isinstance(error, TryAgain):
        return str(error)
    return f"{type(error).__name__}: {error}".strip()
