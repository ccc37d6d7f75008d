# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""What the operator and the sensor share: time limits, deferral, and resuming."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, NoReturn

from runqy_provider.airflow_compat import TaskDeferralTimeout
from runqy_provider.errors import Misconfigured
from runqy_provider.models import SILENT

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.triggers.base import BaseTrigger

    from runqy_provider.context import SinkContext
    from runqy_provider.models import DeliveryEvent

#: Airflow's own timeout of a deferral comes this much later than our deadline, whose
#: message says more.
DEFERRAL_GRACE = timedelta(minutes=2)


@dataclass(frozen=True)
class TimeLimit:
    """The argument of a task that limits its wait.

    Attributes:
        name: Name of the argument, for messages.
        length: Its value.
    """

    name: str
    length: timedelta

    @classmethod
    def of(cls, task: BaseOperator, name: str, length: timedelta) -> TimeLimit:
        """Return the shorter of a limit and the task's ``execution_timeout``.

        Airflow does not count ``execution_timeout`` while a task is deferred.

        Raises:
            Misconfigured: It is not longer than zero.
        """
        if task.execution_timeout is not None and task.execution_timeout < length:
            name, length = "execution_timeout", task.execution_timeout
        if length <= timedelta(0):
            raise Misconfigured(f"{name} must be longer than zero.")
        return cls(name, length)

    @property
    def seconds(self) -> float:
        """The length in seconds."""
        return self.length.total_seconds()

    def __str__(self) -> str:
        return f"{self.name} ({self.length})"


def defer(task: BaseOperator, trigger: BaseTrigger, deadline: float) -> NoReturn:
    """Defer a task until its trigger fires.

    Args:
        task: The task; it is resumed by its ``execute_complete``.
        trigger: The trigger.
        deadline: When the trigger gives up, in seconds since 1970.
    """
    left = timedelta(seconds=max(0.0, deadline - time.time()))
    task.defer(
        trigger=trigger, method_name="execute_complete", timeout=left + DEFERRAL_GRACE
    )
    raise AssertionError  # pragma: no cover - defer raises


def in_seconds(length: timedelta | None) -> float | None:
    """Return a duration in seconds; None where it is None."""
    return None if length is None else length.total_seconds()


def raise_not_arrived(
    event: DeliveryEvent,
    context: SinkContext,
    limit: TimeLimit,
    heartbeat_timeout: timedelta | None,
) -> NoReturn:
    """Raise the error of a wait that ended without a delivery.

    Args:
        event: How the wait ended.
        context: The runqy connection and the options.
        limit: The time limit of the wait.
        heartbeat_timeout: The task's argument of that name.

    Raises:
        RunqyError: What ``raise_outcome`` raises.
    """
    if event.kind == SILENT and heartbeat_timeout is not None:
        limit = TimeLimit("heartbeat_timeout", heartbeat_timeout)
    from runqy_provider.jobs.outcome import (  # noqa: PLC0415 - for errors only
        raise_outcome,
    )

    raise_outcome(event, context, str(limit))


def is_deferral_timeout(error: BaseException) -> bool:
    """Return whether Airflow's own timeout of the deferral caused an error."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, TaskDeferralTimeout):
        cause = cause.__cause__
    return cause is not None
