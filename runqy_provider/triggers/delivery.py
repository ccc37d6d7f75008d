# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The trigger that waits for one delivery."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.triggers.base import TaskSuccessEvent, TriggerEvent

from runqy_delivery.wire import COMPLETED
from runqy_provider.airflow_compat import AirflowNotFoundException, in_thread
from runqy_provider.errors import RunqyError
from runqy_provider.hooks.runqy import RunqyHook
from runqy_provider.jobs.cancellation import delete_if_pending, is_abandoned
from runqy_provider.jobs.task_end import TaskEnd, end_task, prepare
from runqy_provider.jobs.waiting import error_event, fetch_settings, wait_for
from runqy_provider.models import JobRef
from runqy_provider.triggers._deleting import DeletingTrigger

if TYPE_CHECKING:
    from airflow.executors.workloads.task import TaskInstanceDTO
    from typing_extensions import Self

    from runqy_provider.models import DeliveryEvent
    from runqy_provider.settings import Settings

#: Seconds for which a deletion is retried if the server is unavailable.
DELETE_RETRY_FOR = 5.0


class DeliveryTrigger(DeletingTrigger):
    """Wait until a delivery has arrived, or its deadline has passed.

    All arguments are plain JSON and none is a secret: Airflow stores them in its
    database. Times are in seconds since 1970.

    :param runqy_conn_id: The runqy connection.
    :param delivery_id: Our id of the delivery.
    :param sink: The sink's URI.
    :param deadline: When to give up.
    :param not_before: The task is not resumed on a worker before this time; see
        ``[runqy] settle_seconds``.
    :param job_id: runqy's id of the job, if it is known.
    :param runqy_queue: Full name of the job's queue, if it is known.
    :param heartbeat: Seconds of silence after which to give up.
    :param delete_abandoned: Delete the job, if it has not started, when a user ends the
        task.
    :param enqueued_at: When the job was enqueued; 0 if it is not known.
    :param task_end: How to end the task without a worker, a ``TaskEnd`` as plain JSON;
        None: a worker ends it.
    """

    def __init__(
        self,
        *,
        runqy_conn_id: str,
        delivery_id: str,
        sink: str,
        deadline: float,
        not_before: float = 0.0,
        job_id: str | None = None,
        runqy_queue: str | None = None,
        heartbeat: float | None = None,
        delete_abandoned: bool = False,
        enqueued_at: float = 0.0,
        task_end: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(delete_abandoned=delete_abandoned)
        self.runqy_conn_id = runqy_conn_id
        self.job = JobRef(delivery_id, sink, job_id, runqy_queue, enqueued_at)
        self.deadline = deadline
        self.not_before = not_before
        self.heartbeat = heartbeat
        self.task_end = task_end

    @classmethod
    def for_job(cls, job: JobRef, **arguments: Any) -> Self:
        """Return a trigger that waits for the delivery of a job.

        Args:
            job: The job.
            arguments: The trigger's other arguments.
        """
        return cls(
            delivery_id=job.delivery_id,
            sink=job.sink,
            job_id=job.job_id,
            runqy_queue=job.runqy_queue,
            enqueued_at=job.enqueued_at,
            **arguments,
        )

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments that make an equal trigger."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "runqy_conn_id": self.runqy_conn_id,
                "delivery_id": self.job.delivery_id,
                "sink": self.job.sink,
                "deadline": self.deadline,
                "not_before": self.not_before,
                "job_id": self.job.job_id,
                "runqy_queue": self.job.runqy_queue,
                "heartbeat": self.heartbeat,
                "delete_abandoned": self.delete_abandoned,
                "task_end": self.task_end,
                "enqueued_at": self.job.enqueued_at,
            },
        )

    async def _event(self) -> TriggerEvent:
        ti = self._ti
        if self.task_end is not None and ti is not None:
            prepare(ti)
        try:
            settings = await fetch_settings(
                self.runqy_conn_id, self.job, self.deadline, self.logger()
            )
        except (RunqyError, AirflowNotFoundException) as error:
            event = error_event(self.job, error)
        else:
            event = await wait_for(
                settings,
                self.job,
                deadline=self.deadline,
                heartbeat_timeout=self.heartbeat,
                log=self.logger(),
            )
            if await self._ends_here(settings, event):
                return TaskSuccessEvent()
        await self._settle(self.not_before)
        return TriggerEvent(event.to_payload())  # type: ignore[no-untyped-call] # Airflow's

    async def _ends_here(self, settings: Settings, event: DeliveryEvent) -> bool:
        ti = self._ti
        if self.task_end is None or ti is None or event.status != COMPLETED:
            return False
        return await end_task(ti, TaskEnd(**self.task_end), settings, event)

    async def _delete_if_abandoned(self, ti: TaskInstanceDTO) -> None:
        job_id = self.job.job_id
        if job_id is None or not await is_abandoned(ti, job_id):
            return
        queue = self.job.runqy_queue or ""

        def delete() -> str:
            with RunqyHook(self.runqy_conn_id, retry_for=DELETE_RETRY_FOR) as hook:
                return delete_if_pending(hook, queue, job_id)

        self.log.info("A user ended the task. %s", await in_thread(delete))
