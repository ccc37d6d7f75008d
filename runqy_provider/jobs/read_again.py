# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Read what has arrived, again and again while its sink is unavailable.

A task without retries must not fail because a Redis fails over, or a database restarts,
between the arrival of a result and the start of the worker that reads it.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, TypeVar

from tenacity import (
    Retrying,
    retry_if_exception_type,
    stop_after_delay,
    wait_random_exponential,
)

from runqy_provider.errors import SinkUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from tenacity import RetryCallState

log = logging.getLogger(__name__)

T = TypeVar("T")

#: Seconds after which an unavailable sink is an error.
READ_AGAIN_FOR = 60.0


def while_unavailable(read: Callable[[], T]) -> T:
    """Return what a call returns, for a process that may wait: a worker.

    Args:
        read: Is called again where it raises SinkUnavailable, for a minute.

    Raises:
        SinkUnavailable: The sink is unavailable for longer.
    """
    return Retrying(
        retry=retry_if_exception_type(SinkUnavailable),
        wait=wait_random_exponential(multiplier=0.2, max=5),
        stop=stop_after_delay(READ_AGAIN_FOR),
        before_sleep=_log,
        reraise=True,
    )(read)


def _log(state: RetryCallState) -> None:
    if state.outcome is not None:
        log.warning("%s It will be tried again.", state.outcome.exception())
