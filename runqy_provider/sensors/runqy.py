# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Wait for a delivery that somebody else asked for."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseSensorOperator, Context, PokeReturnValue
from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import (
    AirflowSensorTimeout,
    AirflowSkipException,
    TaskDeferralTimeout,
)

from runqy_provider.connections import DEFAULT_CONN_ID
from runqy_provider.context import get_access
from runqy_provider.errors import DeliveryTimeout, JobVanished, RunqyError
from runqy_provider.hooks.result import AUTO, RunqyResultHook, check_returns
from runqy_provider.hooks.runqy import RunqyHook
from runqy_provider.jobs.outcome import ARRIVED, DEADLINE, SILENT, raise_outcome
from runqy_provider.jobs.received import ReceivedDelivery
from runqy_provider.jobs.submission import check_delivery_id
from runqy_provider.jobs.task_end import TaskEnd, task_end_of
from runqy_provider.sinks.registry import parse_sink
from runqy_provider.triggers.delivery import DeliveryTrigger

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runqy_provider.context import Access
    from runqy_provider.hooks.result import Returns
    from runqy_provider.sinks.registry import SinkArgument

#: See RunqyOperator: our deadline has better words than Airflow's.
BACKSTOP = timedelta(minutes=2)


class RunqySensor(BaseSensorOperator):
    """Wait for the result of a job enqueued elsewhere, and return it.

    Whoever enqueued it has asked for the delivery, by ``RunqyHook`` and ``submit`` or
    in an earlier task; the sensor needs the ``delivery_id`` and the sink.

    :param delivery_id: The delivery to wait for. (templated)
    :param sink: Where it goes; the connection's default where not given. (templated)
    :param job_id: runqy's id of the job: lets a timeout say what runqy knows of it;
        the sink ``redis_storage`` cannot do without. (templated)
    :param runqy_queue: Full name of the job's queue; likewise. (templated)
    :param runqy_conn_id: The runqy connection. (templated)
    :param deferrable: Free the worker slot while waiting; False pokes.
    :param heartbeat_timeout: How long a job that has begun may give no sign of life
        before a deferred wait for it ends; see RunqyOperator.
    :param end_from_trigger: Whether the triggerer ends the task; see RunqyOperator.
    :param returns: What the task returns; see RunqyOperator.
    """

    template_fields: Sequence[str] = (
        "delivery_id",
        "sink",
        "job_id",
        "runqy_queue",
        "runqy_conn_id",
    )
    ui_color = "#e3ecf0"

    def __init__(
        self,
        *,
        delivery_id: str,
        sink: SinkArgument | None = None,
        job_id: str | None = None,
        runqy_queue: str | None = None,
        runqy_conn_id: str = DEFAULT_CONN_ID,
        deferrable: bool = True,
        heartbeat_timeout: timedelta | None = None,
        end_from_trigger: bool | None = None,
        returns: Returns = AUTO,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.delivery_id = delivery_id
        self.sink = sink
        self.job_id = job_id
        self.runqy_queue = runqy_queue
        self.runqy_conn_id = runqy_conn_id
        self.deferrable = deferrable
        self.heartbeat_timeout = heartbeat_timeout
        self.end_from_trigger = end_from_trigger
        self.returns = returns
        self._gone_since: float | None = None

    def execute(self, context: Context) -> Any:
        """Look once, then defer; or poke."""
        check_delivery_id(self.delivery_id)
        check_returns(self.returns)
        if not self.deferrable:
            return super().execute(context)
        end = task_end_of(
            self,
            context,
            wanted=self.end_from_trigger,
            own=RunqySensor,
            pushes_receipt=False,
            returns=self.returns,
        )
        poked = self.poke(context)
        if poked:
            return poked.xcom_value
        settle = conf.getfloat("runqy", "settle_seconds")
        seconds = self._limit()[1].total_seconds()
        trigger = self._trigger(
            self._access(), time.time() + seconds, time.time() + settle, end
        )
        self.defer(
            trigger=trigger,
            method_name="execute_complete",
            timeout=timedelta(seconds=seconds) + BACKSTOP,
        )
        return None

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:  # noqa: ARG002 - Airflow's signature
        """Return the result that the trigger saw arrive."""
        return self._outcome(event)

    def resume_execution(
        self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context
    ) -> Any:
        """Go on after the wait; look once more where Airflow ended it."""
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except (AirflowSensorTimeout, AirflowSkipException) as error:
            if not _is_of_airflow(error):
                raise
            # It may have come all the same, with nobody there to see it.
            access = self._access()
            event = self._trigger(access, deadline=0.0).wait_here(access, watch=False)
            if event["event"] != ARRIVED:
                raise
            return self._outcome(event)

    def poke(self, context: Context) -> PokeReturnValue:  # noqa: ARG002 - Airflow's signature
        """Look once."""
        access = self._access()
        event = self._trigger(access, deadline=0.0).wait_here(access, watch=False)
        if event["event"] == DEADLINE:
            if event.get("unseen"):
                # What cannot be looked at may hold the result of a job that is gone.
                self.log.warning("Nothing could be seen: %s", event["unseen"])
                self._gone_since = None
            else:
                self._check_job(access)
            return PokeReturnValue(is_done=False)
        return PokeReturnValue(is_done=True, xcom_value=self._outcome(event))

    def _limit(self) -> tuple[str, timedelta]:
        """Return the argument that limits a deferred wait, and its value."""
        limit = timedelta(seconds=self.timeout)
        # Airflow does not count execution_timeout while a task is deferred.
        if self.execution_timeout is not None and self.execution_timeout < limit:
            return "execution_timeout", self.execution_timeout
        return "timeout", limit

    def _check_job(self, access: Access) -> None:
        """Fail once the job has been gone for longer than a delivery may take.

        A poke looks once, so between pokes the sensor keeps what was seen first.
        """
        if self.job_id is None or not access.watch:
            return
        try:
            with RunqyHook(self.runqy_conn_id, retry_for=0) as hook:
                hook.get_job(self.job_id)
        except JobVanished as error:
            self._gone_since = self._gone_since or time.time()
            if time.time() - self._gone_since >= access.vanished_grace:
                raise JobVanished(
                    f"{error} Nothing was delivered in the {access.vanished_grace:g} s "
                    f"after, at sink {self.sink or access.settings.sink!r}."
                ) from error
        except RunqyError as error:
            self.log.warning("The job was not looked at: %s", error)
        else:
            self._gone_since = None

    def _access(self) -> Access:
        return get_access(self.runqy_conn_id)

    def _trigger(
        self,
        access: Access,
        deadline: float,
        not_before: float = 0.0,
        end: TaskEnd | None = None,
    ) -> DeliveryTrigger:
        return DeliveryTrigger(
            runqy_conn_id=self.runqy_conn_id,
            delivery_id=self.delivery_id,
            sink=parse_sink(self.sink or access.settings.sink).uri,
            deadline=deadline,
            not_before=not_before,
            job_id=self.job_id,
            runqy_queue=self.runqy_queue,
            heartbeat=None
            if self.heartbeat_timeout is None
            else self.heartbeat_timeout.total_seconds(),
            task_end=None if end is None else end.to_json(),
        )

    def _outcome(self, event: dict[str, Any]) -> Any:
        name, length = self._limit()
        if event["event"] == SILENT:
            name, length = "heartbeat_timeout", self.heartbeat_timeout or length
        try:
            if event["event"] != ARRIVED:
                raise_outcome(event, self.runqy_conn_id, f"{name} ({length})")
            results = RunqyResultHook(self.runqy_conn_id)
            received = ReceivedDelivery(event, results, self.returns)
            received.read()
            received.forget()
        except RunqyError as error:
            if self.soft_fail or self.never_fail:
                raise AirflowSkipException(str(error)) from error
            if isinstance(error, DeliveryTimeout):
                raise AirflowSensorTimeout(str(error)) from error
            raise
        return received.value


def _is_of_airflow(error: BaseException) -> bool:
    """Tell whether it was Airflow's own limit that ended the wait."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, TaskDeferralTimeout):
        cause = cause.__cause__
    return cause is not None
