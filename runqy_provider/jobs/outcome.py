# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""What operator and sensor share: deferral, and how a wait ends, well or badly."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from tenacity import (
    Retrying,
    retry_if_exception_type,
    stop_after_delay,
    wait_random_exponential,
)

from runqy_delivery.wire import FAILED
from runqy_provider.airflow_compat import TaskDeferralTimeout
from runqy_provider.client.models import PENDING
from runqy_provider.errors import (
    DeliveryTimeout,
    HeartbeatTimeout,
    JobFailed,
    JobVanished,
    Misconfigured,
    RunqyError,
    SinkError,
    SinkUnavailable,
    by_name,
)
from runqy_provider.hooks.runqy import RunqyHook
from runqy_provider.jobs.telemetry import count_delivered
from runqy_provider.models import AUTO, DEADLINE, ERROR, SILENT, is_reference
from runqy_provider.sinks.registry import sink_from_uri

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow.sdk import BaseOperator
    from airflow.triggers.base import BaseTrigger
    from tenacity import RetryCallState

    from runqy_provider.hooks.result import RunqyResultHook
    from runqy_provider.models import DeliveryEvent, Reference
    from runqy_provider.settings import Settings

#: Airflow's own timeout of a deferral is this much later than our deadline, whose
#: message says more.
DEFERRAL_GRACE = timedelta(minutes=2)

T = TypeVar("T")

log = logging.getLogger(__name__)

#: Seconds after which an unavailable sink is an error.
READ_AGAIN_FOR = 60.0


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
    """Return a duration in seconds; None if it is None."""
    return None if length is None else length.total_seconds()


def is_deferral_timeout(error: BaseException) -> bool:
    """Return whether Airflow's own timeout of the deferral caused an error."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, TaskDeferralTimeout):
        cause = cause.__cause__
    return cause is not None


def raise_not_arrived(
    event: DeliveryEvent,
    settings: Settings,
    limit: TimeLimit,
    heartbeat_timeout: timedelta | None,
) -> NoReturn:
    """Raise the error of a wait that ended without a delivery.

    Args:
        event: How the wait ended.
        settings: The runqy connection and the options.
        limit: The time limit of the wait.
        heartbeat_timeout: The task's argument of that name.

    Raises:
        DeliveryTimeout: Nothing arrived by the deadline.
        HeartbeatTimeout: The job was silent for too long.
        RunqyError: Of the type that ended the wait.
    """
    job = event.job
    if event.kind == ERROR:
        raise by_name(event.error)(f"{event.message}{_progress(event)}")
    if event.kind == DEADLINE:
        raise DeliveryTimeout(
            f"No delivery {job.delivery_id} within {limit}, at sink {job.sink!r}. "
            f"{_diagnostics(event, settings)}"
        )
    if event.kind == SILENT:
        raise HeartbeatTimeout(
            "No sign of life from the job within heartbeat_timeout "
            f"({heartbeat_timeout}), and no delivery {job.delivery_id} at sink "
            f"{job.sink!r}. Last sign: {_utc(event.last_sign)}. "
            f"{_diagnostics(event, settings)}"
        )
    raise Misconfigured(
        f"The trigger's event is of the unknown kind {event.kind!r}. Do triggerer and "
        "worker run the same version of airflow-provider-runqy?"
    )


def _diagnostics(event: DeliveryEvent, settings: Settings) -> str:
    """Say where the job is, and where its delivery was looked for."""
    job = event.job
    sink = sink_from_uri(job.sink).bind(settings)
    sentences = [
        event.refusal or sink.describe_timeout(job),
        f"Last successful poll: {_utc(event.last_poll)}.",
    ]
    if event.last_error:
        sentences.append(f"The last poll failed: {event.last_error}")
    if job.job_id:
        sentences.append(_state_of_job(settings, job.job_id))
    return " ".join(sentences) + _progress(event)


def _state_of_job(settings: Settings, job_id: str) -> str:
    """Say what runqy knows about a job, or why that is not known."""
    try:
        with RunqyHook.from_settings(settings, retry_for=0) as hook:
            job = hook.get_job(job_id)
    except JobVanished as error:
        return str(error)
    except RunqyError as error:
        return f"runqy could not be asked about job {job_id}: {error}"
    if job.state == PENDING:
        return (
            f"The job has not started: runqy says that job {job_id} is pending. "
            f"Start a runqy worker for the queue {job.runqy_queue!r}, or wait longer."
        )
    return (
        f"runqy says that job {job_id} in queue {job.runqy_queue!r} is {job.state}, "
        f"retried {job.retried} of {job.max_retry} times."
    )


def _progress(event: DeliveryEvent) -> str:
    return f" Last progress: {event.progress}." if event.progress else ""


def _utc(seconds: float | None) -> str:
    if not seconds:
        return "never"
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))


@dataclass
class ReceivedDelivery:
    """What a task returns and stores when a delivery has arrived.

    Attributes:
        event: The event.
        results: The hook that reads the result.
        returns: See ``RunqyResultHook.collect``.
        receipt: Plain JSON for the XCom ``runqy_delivery``; ``read`` completes it.
        value: The result as it goes to XCom, after ``read``.
        reference: Reference to the result, after ``read``.
        download_url: URL of the result for people, after ``read``; None if there is
            none.
    """

    event: DeliveryEvent
    results: RunqyResultHook
    returns: str = AUTO
    receipt: dict[str, Any] = field(init=False)
    value: Any = None
    reference: Reference | None = None
    download_url: str | None = None

    def __post_init__(self) -> None:
        event = self.event
        self.receipt = {
            "delivery_id": event.job.delivery_id,
            "job_id": event.job.job_id,
            "status": event.status,
            "where": event.result_uri,
            "delivered_at": event.delivered_at,
        }

    def read(self) -> None:
        """Read the result.

        Raises:
            JobFailed: The task code reported a failure.
            SinkError: It cannot be read.
            BadDelivery: It is not of the type that it claims.
            TooLarge: A value is required, and XCom cannot hold it.
        """
        event = self.event
        sink = sink_from_uri(event.job.sink)
        try:
            self.value, self.reference = self.results.collect_with_reference(
                sink, event.job.delivery_id, event.result_uri, self.returns
            )
        except JobFailed:
            # Some sinks only announce a delivery; only now it is known that it is a
            # failure.
            self.receipt["status"] = FAILED
            raise
        # Some sinks only announce a delivery: the result itself is elsewhere.
        self.receipt |= {
            "where": self.reference.uri,
            "content_type": self.reference.content_type,
            "size": self.reference.size,
        }
        log.info("%s", self._arrival_message(self.reference))
        count_delivered(event)
        if not is_reference(self.value):
            return
        try:
            self.download_url = self.results.link(sink, self.value)
        except SinkError as error:
            # The result is available: a missing link must not fail the task.
            log.warning("There is no link to the result: %s", error)
        self.receipt["download_url"] = self.download_url

    def _arrival_message(self, reference: Reference) -> str:
        size = "" if reference.size is None else f"{reference.size:,} bytes of "
        event = self.event
        # A store may write times in whole seconds.
        waited = max(0.0, event.delivered_at - event.job.enqueued_at)
        after = f", {waited:.1f} s after the job was enqueued"
        return (
            f"The result has arrived: {size}{reference.content_type} at "
            f"{reference.uri}{after if event.job.enqueued_at else ''}."
        )

    def forget(self) -> None:
        """Let an inbox drop the result, if its value is now in XCom."""
        if is_reference(self.value):
            return
        try:
            self.results.forget(self.event.result_uri)
        except SinkError as error:
            # The result was read: a failed cleanup must not fail the task.
            log.warning("The delivery stays in the inbox until it expires: %s", error)


def while_unavailable(read: Callable[[], T]) -> T:
    """Return what a call returns, for a process that may wait: a worker.

    Args:
        read: Is called again if it raises SinkUnavailable, for a minute.

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
