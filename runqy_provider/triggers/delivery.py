# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The trigger that waits for one delivery."""

from __future__ import annotations

import abc
import asyncio
import time
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TaskSuccessEvent, TriggerEvent

from runqy_delivery.wire import COMPLETED
from runqy_provider.airflow_compat import AirflowNotFoundException, in_thread
from runqy_provider.errors import RunqyError
from runqy_provider.hooks.runqy import RunqyHook
from runqy_provider.jobs.cancellation import delete_if_pending, is_abandoned
from runqy_provider.jobs.task_end import TaskEnd, end_task, prepare
from runqy_provider.jobs.telemetry import add_waiting
from runqy_provider.jobs.waiting import error_event, fetch_settings, wait_for
from runqy_provider.models import JobRef

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from airflow.executors.workloads.task import TaskInstanceDTO
    from typing_extensions import Self

    from runqy_provider.models import DeliveryEvent
    from runqy_provider.settings import Settings

#: Deletions in progress: the event loop itself does not keep a reference to a task.
_deletions: set[asyncio.Task[None]] = set()

#: Seconds for which a deletion is retried if the server is unavailable.
DELETE_RETRY_FOR = 5.0


class DeletingTrigger(BaseTrigger):
    """Yields one event; deletes jobs that have not started if a user ends the task.

    Args:
        delete_abandoned: Whether to delete them.
    """

    def __init__(self, *, delete_abandoned: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # Airflow's
        self.delete_abandoned = delete_abandoned
        self._is_done = False
        self._deletion: asyncio.Task[None] | None = None

    @abc.abstractmethod
    async def _event(self) -> TriggerEvent:
        """Wait, and return the event."""

    @abc.abstractmethod
    async def _delete_if_abandoned(self, ti: TaskInstanceDTO) -> None:
        """Delete the jobs, if their results will not be asked for any more."""

    async def run(self) -> AsyncIterator[TriggerEvent]:
        add_waiting(1)
        try:
            event = await self._event()
        except asyncio.CancelledError as error:
            deletion = None
            # Airflow cancels with a message because of a user, and without one if the
            # triggerer shuts down. Before 3.3 there is never a message.
            if error.args or not hasattr(BaseTrigger, "on_kill"):
                deletion = self._start_deletion()
            if error.args:
                await _to_its_end(deletion)
            raise
        finally:
            add_waiting(-1)
        # From here on a cancellation says nothing about the task.
        self._is_done = True
        yield event

    async def on_kill(self) -> None:
        """Delete the jobs that have not started, if a user has ended the task.

        Airflow calls this in other cases, too: see ``jobs/cancellation.py``.
        """
        deletion = self._start_deletion()
        if deletion is not None:
            await asyncio.shield(deletion)

    @property
    def _ti(self) -> TaskInstanceDTO | None:
        # ``dag.test()`` runs triggers without a task instance.
        return getattr(self, "task_instance", None)

    async def _settle(self, not_before: float) -> None:
        """Wait until the task may be resumed on a worker.

        Before that, Airflow's scheduler could confuse the end of the process that
        deferred with the end of the task. ``dag.test()`` has no scheduler.
        """
        if self._ti is not None:
            await asyncio.sleep(max(0.0, not_before - time.time()))

    def _start_deletion(self) -> asyncio.Task[None] | None:
        """Begin to delete the jobs, unless the event was yielded.

        Before 3.3 Airflow does not call ``on_kill``: it only cancels a trigger, also if
        the whole triggerer shuts down, which must not wait for this deletion.
        """
        ti = self._ti
        if ti is None or self._is_done or not self.delete_abandoned:
            return None
        if self._deletion is None:
            self._deletion = asyncio.create_task(self._delete_if_abandoned(ti))
            _deletions.add(self._deletion)
            self._deletion.add_done_callback(_deletions.discard)
        return self._deletion


async def _to_its_end(deletion: asyncio.Task[None] | None) -> None:
    """Wait for a deletion, although Airflow cancels its trigger again every second.

    Airflow closes the log of the task when the trigger has ended.
    """
    while deletion is not None and not deletion.done():
        try:
            await asyncio.wait([deletion])
        except asyncio.CancelledError as error:
            if not error.args:
                raise  # the triggerer shuts down


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
