# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Wait for the delivery of one job, in a triggerer or in a worker's slot."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runqy_provider.airflow_compat import AirflowNotFoundException
from runqy_provider.errors import Misconfigured, RunqyError
from runqy_provider.models import ARRIVED, DEADLINE, ERROR, SILENT, DeliveryEvent
from runqy_provider.sanitize import storable
from runqy_provider.settings import aload_settings
from runqy_provider.sinks.registry import sink_from_uri
from runqy_provider.waiters.race import poll_once, poll_status, wait_any
from runqy_provider.waiters.wait import LivenessMonitor
from runqy_provider.waiters.waiter import run_wait

if TYPE_CHECKING:
    from collections.abc import Callable

    from runqy_provider.models import JobRef
    from runqy_provider.settings import Settings
    from runqy_provider.waiters.source import Arrival, StatusUpdate
    from runqy_provider.waiters.waiter import WaitTarget

#: Seconds for which a connection that is not found is retried, and between retries.
CONNECTION_RETRY_FOR, CONNECTION_RETRY_DELAY = 60.0, 5.0


async def fetch_settings(
    runqy_conn_id: str, job: JobRef, deadline: float, log: Any
) -> Settings:
    """Fetch the connection of a job that is waited for; retry for a while.

    Airflow says that a connection is not found also if its own database or API server
    could not be asked.

    Args:
        runqy_conn_id: The runqy connection.
        job: The job, or one of them.
        deadline: When to give up at the latest, in seconds since 1970.
        log: Logger of the waiting task.

    Raises:
        AirflowNotFoundException: The connection does not exist.
        Misconfigured: It lacks what is needed to look.
    """
    until = min(deadline, time.time() + CONNECTION_RETRY_FOR)
    while True:
        try:
            settings = await aload_settings(runqy_conn_id)
            targets_of(settings, job)
        except (RunqyError, AirflowNotFoundException) as error:
            if time.time() >= until:
                raise
            log.warning("The wait has not begun yet, will retry: %s", error)
        else:
            return settings
        await asyncio.sleep(CONNECTION_RETRY_DELAY)


async def wait_for(
    settings: Settings,
    job: JobRef,
    *,
    deadline: float,
    heartbeat_timeout: float | None = None,
    monitor: bool = True,
    log: Any = None,
) -> DeliveryEvent:
    """Wait until a delivery has arrived, or will not arrive.

    Args:
        settings: The runqy connection and the options.
        job: The job, with the sink that it delivers to.
        deadline: When to give up, in seconds since 1970.
        heartbeat_timeout: Seconds of silence after which to give up; None: never.
        monitor: Whether to observe the job itself as well.
        log: Logger of the waiting task, for progress; None: nothing is logged.

    Returns:
        How the wait ended; errors of this provider are events, too.
    """
    observed = None
    if monitor:
        from runqy_provider.jobs.monitor import (  # noqa: PLC0415 - not before a deferral
            monitor_target,
        )

        observed = monitor_target(settings, job)
    liveness = LivenessMonitor(
        heartbeat_timeout, update_logger(log), is_watched=observed is not None
    )
    try:
        targets = targets_of(settings, job)
        arrival = await wait_any(
            targets, deadline=deadline, liveness=liveness, monitor=observed
        )
    except RunqyError as error:
        return error_event(job, error, liveness.progress)
    if arrival is not None:
        return _arrived(job, arrival)
    is_silent = liveness.is_silent and time.time() < deadline
    return _not_arrived(job, targets, SILENT if is_silent else DEADLINE, liveness)


def look_once(settings: Settings, job: JobRef) -> DeliveryEvent:
    """Look once whether a delivery has arrived, in a process without an event loop.

    Returns:
        An event of the kind ARRIVED or ERROR, or DEADLINE if nothing has arrived.
    """
    return run_wait(_look_once(settings, job))


async def _look_once(settings: Settings, job: JobRef) -> DeliveryEvent:
    liveness = LivenessMonitor()
    try:
        targets = targets_of(settings, job)
        arrival = await poll_once(targets, liveness)
    except RunqyError as error:
        return error_event(job, error)
    if arrival is not None:
        return _arrived(job, arrival)
    return _not_arrived(job, targets, DEADLINE, liveness)


def targets_of(settings: Settings, job: JobRef) -> list[WaitTarget]:
    """Return the sources at which a delivery, or its failure, may arrive.

    Raises:
        Misconfigured: The job, or the connection, lacks what is needed to look.
    """
    return sink_from_uri(job.sink).bind(settings).all_targets(job)


def error_event(job: JobRef, error: Exception, progress: str = "") -> DeliveryEvent:
    """Return the event of an error that ended a wait."""
    known = error if isinstance(error, RunqyError) else Misconfigured()
    return DeliveryEvent(
        job,
        ERROR,
        error=type(known).__name__,
        # It may quote the task code, and goes to Airflow's database.
        message=storable(str(error)),
        progress=progress,
    )


def update_logger(log: Any) -> Callable[[StatusUpdate], None]:
    """Return a function that logs status updates as the task that waits.

    The waiter has its own context, but its reports belong in the log of the task whose
    context is current now.
    """
    if log is None:
        return _log_nothing
    return _TaskLog(log, contextvars.copy_context())


def _log_nothing(_update: StatusUpdate) -> None:
    """Log nothing."""


# Not a closure, as there may be thousands.
@dataclass(slots=True)
class _TaskLog:
    log: Any
    context: contextvars.Context

    def __call__(self, update: StatusUpdate) -> None:
        level = logging.INFO if update.is_progress else logging.WARNING
        prefix = "Progress: " if update.is_progress else ""
        self.context.run(self.log.log, level, "%s%s", prefix, update.message)


def _arrived(job: JobRef, arrival: Arrival) -> DeliveryEvent:
    return DeliveryEvent(
        job,
        ARRIVED,
        status=arrival.status,
        result_uri=arrival.result_uri,
        delivered_at=arrival.delivered_at,
    )


def _not_arrived(
    job: JobRef,
    targets: list[WaitTarget],
    kind: str,
    liveness: LivenessMonitor,
) -> DeliveryEvent:
    status = poll_status(targets)
    return DeliveryEvent(
        job,
        kind,
        progress=liveness.progress,
        last_sign=liveness.last_sign,
        last_poll=status.last_poll,
        last_error=status.last_error,
        unreadable_because=status.unreadable_because,
        refusal=liveness.refusal,
    )
