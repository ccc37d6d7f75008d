# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Wait for a delivery that was requested elsewhere."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseSensorOperator, Context, PokeReturnValue

from runqy_provider.airflow_compat import AirflowSensorTimeout, AirflowSkipException
from runqy_provider.connections import DEFAULT_CONN_ID
from runqy_provider.errors import DeliveryTimeout, JobVanished, RunqyError
from runqy_provider.hooks.result import RunqyResultHook, check_returns
from runqy_provider.hooks.runqy import RunqyHook
from runqy_provider.inbox.callback_url import check_delivery_id
from runqy_provider.jobs.outcome import (
    ReceivedDelivery,
    TimeLimit,
    defer,
    in_seconds,
    is_deferral_timeout,
    raise_not_arrived,
    while_unavailable,
)
from runqy_provider.jobs.task_end import task_end_of
from runqy_provider.jobs.waiting import look_once
from runqy_provider.models import ARRIVED, AUTO, DEADLINE, DeliveryEvent, JobRef
from runqy_provider.operators._task import check_texts
from runqy_provider.settings import load_settings
from runqy_provider.sinks.registry import sink_from_uri
from runqy_provider.triggers.delivery import DeliveryTrigger

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runqy_provider.models import Returns
    from runqy_provider.settings import Settings
    from runqy_provider.sinks.registry import SinkArgument


class RunqySensor(BaseSensorOperator):
    """Wait for the result of a job enqueued elsewhere, and return it.

    The delivery was requested by ``RunqyHook.submit``, or in an earlier task; the
    sensor needs its ``delivery_id`` and the sink.

    :param delivery_id: The delivery to wait for. (templated)
    :param sink: Where it is delivered; by default the connection's sink. (templated)
    :param job_id: runqy's id of the job: a timeout then says what runqy knows about it.
        The sink ``redis_storage`` needs it. (templated)
    :param runqy_queue: Full name of the job's queue; needed if ``job_id`` is given.
        (templated)
    :param runqy_conn_id: The runqy connection. (templated)
    :param deferrable: Free the worker slot while waiting; False pokes.
    :param heartbeat_timeout: How long a job that has started may be silent before a
        deferred wait for it ends; see RunqyOperator.
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
        self._refusal = ""

    def execute(self, context: Context) -> Any:
        """Look once, then defer; or poke."""
        self._check_texts()
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
        settings = load_settings(self.runqy_conn_id)
        poked = self._poke(settings)
        if poked:
            return poked.xcom_value
        deadline = time.time() + self._limit.seconds
        trigger = DeliveryTrigger.for_job(
            self._job(settings),
            runqy_conn_id=self.runqy_conn_id,
            deadline=deadline,
            not_before=time.time() + settings.config.settle_seconds,
            heartbeat=in_seconds(self.heartbeat_timeout),
            task_end=None if end is None else end.to_json(),
        )
        return defer(self, trigger, deadline)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:  # noqa: ARG002 - Airflow's signature
        """Return the result of the delivery for which the trigger fired."""
        self._check_texts()
        settings = load_settings(self.runqy_conn_id)
        return self._finish(settings, DeliveryEvent.from_payload(event))

    def resume_execution(
        self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context
    ) -> Any:
        """Continue after the wait; look once more if Airflow ended it."""
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except (AirflowSensorTimeout, AirflowSkipException) as error:
            if not is_deferral_timeout(error):
                raise
            # The result may have arrived while no triggerer ran.
            self._check_texts()
            settings = load_settings(self.runqy_conn_id)
            event = look_once(settings, self._job(settings))
            if event.kind != ARRIVED:
                raise
            return self._finish(settings, event)

    def poke(self, context: Context) -> PokeReturnValue:  # noqa: ARG002 - Airflow's signature
        return self._poke(load_settings(self.runqy_conn_id))

    def _check_texts(self) -> None:
        required = ("delivery_id", "runqy_conn_id")
        check_texts(self, required, ("sink", "job_id", "runqy_queue"))

    def _poke(self, settings: Settings) -> PokeReturnValue:
        event = look_once(settings, self._job(settings))
        if event.kind != DEADLINE:
            value = self._finish(settings, event)
            return PokeReturnValue(is_done=True, xcom_value=value)
        if event.unreadable_because:
            # A source that cannot be polled may hold the result of a job that is gone.
            self.log.warning("Polling failed, will retry: %s", event.unreadable_because)
            self._gone_since = None
        else:
            self._check_job(settings, event.refusal)
        return PokeReturnValue(is_done=False)

    @property
    def _limit(self) -> TimeLimit:
        return TimeLimit.of(self, "timeout", timedelta(seconds=self.timeout))

    def _job(self, settings: Settings) -> JobRef:
        sink = sink_from_uri(self.sink or settings.connection.sink)
        return JobRef(self.delivery_id, sink.uri, self.job_id, self.runqy_queue)

    def _check_job(self, settings: Settings, refusal: str) -> None:
        """Fail if the job has been gone for longer than a delivery may take.

        A poke looks once, so the sensor remembers between pokes since when it is gone.
        """
        if refusal and refusal != self._refusal:
            self._refusal = refusal
            self.log.warning("%s", refusal)
        config = settings.config
        if self.job_id is None or not config.watch_seconds:
            return
        try:
            with RunqyHook.from_settings(settings, retry_for=0) as hook:
                hook.get_job(self.job_id)
        except JobVanished as error:
            self._gone_since = self._gone_since or time.time()
            if time.time() - self._gone_since >= config.vanished_grace_seconds:
                sink = self.sink or settings.connection.sink
                raise JobVanished(
                    f"{error} Nothing was delivered in the "
                    f"{config.vanished_grace_seconds:g} s after, at sink {sink!r}.",
                    advice=refusal,
                ) from error
        except RunqyError as error:
            self.log.warning("The state of the job is not known: %s", error)
        else:
            self._gone_since = None

    def _finish(self, settings: Settings, event: DeliveryEvent) -> Any:
        try:
            if event.kind != ARRIVED:
                raise_not_arrived(event, settings, self._limit, self.heartbeat_timeout)
            results = RunqyResultHook.from_settings(settings)
            received = ReceivedDelivery(event, results, self.returns)
            while_unavailable(received.read)
            received.forget()
        except RunqyError as error:
            if self.soft_fail or self.never_fail:
                raise AirflowSkipException(str(error)) from error
            if isinstance(error, DeliveryTimeout):
                raise AirflowSensorTimeout(str(error)) from error
            raise
        return received.value
