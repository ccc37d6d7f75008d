# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Parts of asyncio that Python 3.10 does not have.

``asyncio.TimeoutError`` is what these timeouts raise: it is not the built-in
``TimeoutError`` before Python 3.11.
"""

from __future__ import annotations

import asyncio
import sys
import weakref
from typing import Any

if sys.version_info >= (3, 11):
    from asyncio import timeout, timeout_at
else:  # pragma: no cover - another Python
    from async_timeout import timeout, timeout_at

__all__ = ["cancel", "is_cancelled", "reschedule", "timeout", "timeout_at"]

#: The tasks that ``cancel`` has cancelled: before Python 3.11 a task does not know.
_cancelled: weakref.WeakSet[asyncio.Task[Any]] = weakref.WeakSet()


def reschedule(limit: Any, when: float) -> None:
    """Change when a ``timeout`` ends, in seconds of the event loop's clock."""
    if sys.version_info >= (3, 11):
        limit.reschedule(when)
    else:  # pragma: no cover - another Python
        limit.update(when)


def cancel(task: asyncio.Task[Any]) -> None:
    """Cancel a task, so that ``is_cancelled`` is true in it."""
    _cancelled.add(task)
    task.cancel()


def is_cancelled() -> bool:
    """Return whether the current task was cancelled, even if that was swallowed.

    Client libraries swallow a cancellation, as redis-py does while it connects, and
    raise ``CancelledError`` without one, as aiormq does.
    """
    task = asyncio.current_task()
    if task is None:
        return False
    if sys.version_info >= (3, 11) and task.cancelling():
        return True
    return task in _cancelled
