# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Wait for one delivery."""

from __future__ import annotations

import asyncio
import contextvars
import time
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowNotFoundException
from airflow.triggers.base import BaseTrigger, TaskSuccessEvent, TriggerEvent

from runqy_delivery.wire import COMPLETED
from runqy_provider.context import aget_access
from runqy_provider.errors import Misconfigured, RunqyError
from runqy_provider.hooks.runqy import RunqyHook
from runqy_provider.jobs.cancellation import adelete_unbegun, is_abandoned
from runqy_provider.jobs.end_in_triggerer import end_task, prepare
from runqy_provider.jobs.monitor import watch_place
from runqy_provider.jobs.outcome import ARRIVED, DEADLINE, ERROR, SILENT
from runqy_provider.jobs.task_end import TaskEnd
from runqy_provider.models import Ticket
from runqy_provider.sanitize import storable
from runqy_provider.sinks import failure_channel
from runqy_provider.sinks.registry import parse_sink
from runqy_provider.waiters.liveness import Vigil
from runqy_provider.waiters.registry import close_waiters
from runqy_provider.waiters.wait_any import looks_at, wait_for_arrival

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from airflow.executors.workloads.task import TaskInstanceDTO

    from runqy_provider.context import Access
    from runqy_provider.waiters.source import News

#: Seconds for which a server that is away is asked again to delete a job.
KILL_PATIENCE = 5.0

#: Seconds for which a connection that is not found is asked for again, and between.
ACCESS_PATIENCE, ACCESS_PAUSE = 60.0, 5.0

#: Deletions under way: the event loop itself keeps no task alive.
_deeds: set[asyncio.Task[None]] = set()


class DeliveryTrigger(BaseTrigger):
    """Wait until a delivery has arrived, or its deadline has come.

    All arguments are plain JSON and none is a secret: Airflow keeps them in its
    database as they are. Times are seconds since 1970.

    :param runqy_conn_id: The runqy connection.
    :param delivery_id: Our id of the delivery.
    :param sink: The sink's URI.
    :param deadline: When to give up.
    :param not_before: The task is not resumed on a worker before then; see ``[runqy]
        settle_seconds``.
    :param job_id: runqy's id of the job, where known.
    :param runqy_queue: Full name of the job's queue, where known.
    :param heartbeat: Seconds without a sign of life after which to give up.
    :param delete_on_kill: Delete the job, if it has not begun, when a user ends the
        task.
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
        delete_on_kill: bool = False,
        task_end: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # Airflow's
        self.runqy_conn_id = runqy_conn_id
        self.delivery_id = delivery_id
        self.sink = sink
        self.deadline = deadline
        self.not_before = not_before
        self.job_id = job_id
        self.runqy_queue = runqy_queue
        self.heartbeat = heartbeat
        self.delete_on_kill = delete_on_kill
        self.task_end = task_end
        self._is_done = False

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments that make an equal trigger."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "runqy_conn_id": self.runqy_conn_id,
                "delivery_id": self.delivery_id,
                "sink": self.sink,
                "deadline": self.deadline,
                "not_before": self.not_before,
                "job_id": self.job_id,
                "runqy_queue": self.runqy_queue,
                "heartbeat": self.heartbeat,
                "delete_on_kill": self.delete_on_kill,
                "task_end": self.task_end,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, and yield one event."""
        ti = getattr(self, "task_instance", None)
        if self.task_end is not None and ti is not None:
            prepare(ti)
        try:
            access = await self._access()
        except (RunqyError, AirflowNotFoundException) as error:
            event = self._failed(error)
        else:
            event = await self.wait(access)
            if await self._ends_here(access, event):
                self._is_done = True
                yield TaskSuccessEvent()
                return
        await asyncio.sleep(max(0.0, self.not_before - time.time()))
        # From here on a cancellation says nothing about the task.
        self._is_done = True
        yield TriggerEvent(event)  # type: ignore[no-untyped-call] # Airflow's

    async def _ends_here(self, access: Access, event: dict[str, Any]) -> bool:
        # ``dag.test()`` runs triggers without a task instance, and knows no such end.
        ti = getattr(self, "task_instance", None)
        if self.task_end is None or ti is None or event.get("status") != COMPLETED:
            return False
        return await end_task(ti, TaskEnd(**self.task_end), access, event)

    async def _access(self) -> Access:
        """Fetch the connection; again for a while, as Airflow may be away itself.

        Airflow says of a connection that it is not found also where its own database
        or API server could not be asked.
        """
        until = min(self.deadline, time.time() + ACCESS_PATIENCE)
        while True:
            try:
                access = await aget_access(self.runqy_conn_id)
                parse_sink(self.sink).places(access, self._ticket)
            except (RunqyError, AirflowNotFoundException) as error:
                if time.time() >= until:
                    raise
                self.log.warning("Not waiting yet; trying again: %s", error)
            else:
                return access
            await asyncio.sleep(ACCESS_PAUSE)

    @property
    def _ticket(self) -> Ticket:
        return Ticket(self.delivery_id, self.job_id, self.runqy_queue)

    def _facts(self) -> dict[str, Any]:
        """Return what every event carries."""
        return {
            "delivery_id": self.delivery_id,
            "job_id": self.job_id,
            "runqy_queue": self.runqy_queue,
            "sink": self.sink,
        }

    def _failed(self, error: Exception, progress: str = "") -> dict[str, Any]:
        """Return the event of an error."""
        kind = error if isinstance(error, RunqyError) else Misconfigured()
        return {
            **self._facts(),
            "event": ERROR,
            "error": type(kind).__name__,
            # It may repeat a stranger's words, and goes to Airflow's database.
            "message": storable(str(error)),
            "progress": progress,
        }

    async def wait(self, access: Access, *, watch: bool = True) -> dict[str, Any]:
        """Wait, and return the event's payload: small, and all that is needed later.

        Args:
            access: What is known of the connection.
            watch: Whether to watch the job itself, too.
        """
        event = self._facts()
        ticket = self._ticket
        watched = watch_place(access, ticket) if watch else None
        # A short look is no time to tell silence from a job that has yet to begin.
        heartbeat = self.heartbeat if watch else None
        vigil = Vigil(heartbeat, self._teller(), is_watched=watched is not None)
        looks: dict[str, Any] = {}
        try:
            sink = parse_sink(self.sink)
            places = [
                *sink.places(access, ticket),
                *failure_channel.places(access, sink, self.delivery_id),
            ]
            arrival = await wait_for_arrival(
                places,
                deadline=self.deadline,
                vigil=vigil,
                watch=watched,
            )
            looks = {**looks_at(places), "progress": vigil.progress}
        except RunqyError as error:
            return self._failed(error, vigil.progress)
        if arrival is None:
            is_silent = vigil.is_silent and time.time() < self.deadline
            looks["last_sign"] = vigil.last_sign
            return {**event, "event": SILENT if is_silent else DEADLINE, **looks}
        return {
            **event,
            "event": ARRIVED,
            "status": arrival.status,
            "where": arrival.where,
            "delivered_at": arrival.delivered_at,
        }

    async def on_kill(self) -> None:
        """Delete the job, if a user has ended the task and the job has not begun.

        Airflow calls this for much else, too: see ``kill_guard``.
        """
        ti = getattr(self, "task_instance", None)
        if ti is None or self._is_done or not self.delete_on_kill:
            return
        # Airflow cancels a trigger again at every turn, about once a second, until it
        # is gone: what takes longer needs a task of its own.
        deed = asyncio.create_task(self._delete_if_abandoned(ti))
        _deeds.add(deed)
        deed.add_done_callback(_deeds.discard)
        await asyncio.shield(deed)

    async def _delete_if_abandoned(self, ti: TaskInstanceDTO) -> None:
        if self.job_id is None or not await is_abandoned(ti, self.job_id):
            return
        queue = self.runqy_queue or ""
        async with RunqyHook(self.runqy_conn_id, retry_for=KILL_PATIENCE) as hook:
            words = await adelete_unbegun(hook, queue, self.job_id)
        self.log.info("The task was ended by a user. %s", words)

    def _teller(self) -> Callable[[News], None]:
        # The waiter runs in a context of its own; what it tells is to stand in the
        # log of this trigger's task.
        context = contextvars.copy_context()

        def tell(news: News) -> None:
            if news.is_progress:
                context.run(self.log.info, "Progress: %s", news.words)
            else:
                context.run(self.log.warning, "%s", news.words)

        return tell

    def wait_here(self, access: Access, *, watch: bool = True) -> dict[str, Any]:
        """Wait in this process, which has no event loop: a worker that holds its slot.

        The same wait, through the same waiters, as in a triggerer.
        """

        async def wait_and_close() -> dict[str, Any]:
            try:
                return await self.wait(access, watch=watch)
            finally:
                await close_waiters()

        return asyncio.run(wait_and_close())
