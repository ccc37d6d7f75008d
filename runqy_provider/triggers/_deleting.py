# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""A trigger with one event, that deletes its jobs when a user ends the task."""

from __future__ import annotations

import abc
import asyncio
import time
from typing import TYPE_CHECKING

from airflow.triggers.base import BaseTrigger

from runqy_provider.jobs.telemetry import add_waiting

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from airflow.executors.workloads.task import TaskInstanceDTO
    from airflow.triggers.base import TriggerEvent

#: Deletions in progress: the event loop itself does not keep a reference to a task.
_deletions: set[asyncio.Task[None]] = set()


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
        """Wait, and yield one event."""
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
