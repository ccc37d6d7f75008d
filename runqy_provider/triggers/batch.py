# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The trigger that waits for the jobs of a batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.triggers.base import TriggerEvent

from runqy_provider.airflow_compat import AirflowNotFoundException, in_thread
from runqy_provider.errors import RunqyError
from runqy_provider.jobs.batch.deletion import delete_pending
from runqy_provider.jobs.batch.progress import BatchProgress
from runqy_provider.jobs.batch.wait import wait_for_batch
from runqy_provider.jobs.cancellation import is_abandoned
from runqy_provider.jobs.waiting import fetch_settings
from runqy_provider.models import ERROR
from runqy_provider.sanitize import storable
from runqy_provider.triggers.delivery import DeletingTrigger

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow.executors.workloads.task import TaskInstanceDTO


class BatchTrigger(DeletingTrigger):
    """Wait until most jobs of a batch that are in flight have ended.

    It enqueues nothing: its task does, when it resumes. All arguments are plain JSON
    and none is a secret: Airflow stores them in its database. Times are in seconds
    since 1970.

    :param runqy_conn_id: The runqy connection.
    :param batch: Its jobs in flight: a ``BatchProgress`` as plain JSON.
    :param until: The task is resumed when at most this number of jobs is in flight.
    :param most_failed: It is also resumed when more jobs than this have failed.
    :param deadline: When to give up.
    :param not_before: The task is not resumed before this time; see ``[runqy]
        settle_seconds``.
    :param heartbeat: Seconds without a delivery after which to give up.
    :param delete_abandoned: Delete the jobs that have not started, when a user ends the
        task.
    """

    def __init__(
        self,
        *,
        runqy_conn_id: str,
        batch: Mapping[str, Any],
        until: int,
        most_failed: int,
        deadline: float,
        not_before: float = 0.0,
        heartbeat: float | None = None,
        delete_abandoned: bool = False,
    ) -> None:
        super().__init__(delete_abandoned=delete_abandoned)
        self.runqy_conn_id = runqy_conn_id
        self.batch = dict(batch)
        self.until = until
        self.most_failed = most_failed
        self.deadline = deadline
        self.not_before = not_before
        self.heartbeat = heartbeat

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return (
            "runqy_provider.triggers.batch.BatchTrigger",
            {
                "runqy_conn_id": self.runqy_conn_id,
                "batch": self.batch,
                "until": self.until,
                "most_failed": self.most_failed,
                "deadline": self.deadline,
                "not_before": self.not_before,
                "heartbeat": self.heartbeat,
                "delete_abandoned": self.delete_abandoned,
            },
        )

    async def _event(self) -> TriggerEvent:
        payload = await self._wait()
        await self._settle(self.not_before)
        return TriggerEvent(payload)  # type: ignore[no-untyped-call] # Airflow's

    async def _wait(self) -> dict[str, Any]:
        batch = BatchProgress.from_json(self.batch)
        try:
            settings = await fetch_settings(
                self.runqy_conn_id, batch.job(0), self.deadline, self.log
            )
            kind = await wait_for_batch(
                settings,
                batch,
                until=self.until,
                most_failed=self.most_failed,
                deadline=self.deadline,
                heartbeat_timeout=self.heartbeat,
                log=self.log,
            )
        except (RunqyError, AirflowNotFoundException) as error:
            name = type(error).__name__
            return {"kind": ERROR, "error": name, "message": storable(str(error))}
        return {"kind": kind, "batch": batch.to_json(), "deadline": self.deadline}

    async def _delete_if_abandoned(self, ti: TaskInstanceDTO) -> None:
        batch = BatchProgress.from_json(self.batch)
        if not await is_abandoned(ti, batch.batch_id):
            return
        self.log.info("A user ended the task.")
        await in_thread(delete_pending, self.runqy_conn_id, batch, self.log)
