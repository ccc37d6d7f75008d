# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Wait for one delivery."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from runqy_provider.errors import RunqyError
from runqy_provider.hooks.access import aget_access
from runqy_provider.hooks.outcome import ARRIVED, DEADLINE, ERROR
from runqy_provider.sinks.parse import parse_sink
from runqy_provider.sinks.ticket import Ticket
from runqy_provider.sinks.wait import looks_at, wait_for_arrival
from runqy_provider.waiting.registry import close_waiters

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from runqy_provider.sinks.base import Access


class DeliveryTrigger(BaseTrigger):
    """Wait until a delivery has arrived, or its deadline has come.

    All arguments are plain JSON and none is a secret: Airflow keeps them in its
    database as they are. Times are seconds since 1970.

    :param runqy_conn_id: The runqy connection.
    :param delivery_id: Our id of the delivery.
    :param sink: The sink's URI.
    :param deadline: When to give up.
    :param not_before: No event before then; see ``[runqy] settle_seconds``.
    :param job_id: runqy's id of the job, where known.
    :param runqy_queue: Full name of the job's queue, where known.
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
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # Airflow's
        self.runqy_conn_id = runqy_conn_id
        self.delivery_id = delivery_id
        self.sink = sink
        self.deadline = deadline
        self.not_before = not_before
        self.job_id = job_id
        self.runqy_queue = runqy_queue

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
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, and yield one event."""
        access = await aget_access(self.runqy_conn_id)
        event = await self.wait(access)
        yield TriggerEvent(event)  # type: ignore[no-untyped-call] # Airflow's

    async def wait(self, access: Access) -> dict[str, Any]:
        """Wait, and return the event's payload: small, and all that is needed later."""
        event: dict[str, Any] = {
            "delivery_id": self.delivery_id,
            "job_id": self.job_id,
            "runqy_queue": self.runqy_queue,
            "sink": self.sink,
        }
        try:
            ticket = Ticket(self.delivery_id, self.job_id, self.runqy_queue)
            places = parse_sink(self.sink).places(access, ticket)
            arrival = await wait_for_arrival(
                places, deadline=self.deadline, not_before=self.not_before
            )
            looks = looks_at(places)
        except RunqyError as error:
            words = {"error": type(error).__name__, "message": str(error)}
            return {**event, "event": ERROR, **words}
        if arrival is None:
            return {**event, "event": DEADLINE, **looks}
        return {
            **event,
            "event": ARRIVED,
            "status": arrival.status,
            "where": arrival.where,
            "delivered_at": arrival.delivered_at,
        }

    def wait_here(self, access: Access) -> dict[str, Any]:
        """Wait in this process, which has no event loop: a worker that holds its slot.

        The same wait, through the same waiters, as in a triggerer.
        """

        async def wait_and_close() -> dict[str, Any]:
            try:
                return await self.wait(access)
            finally:
                await close_waiters()

        return asyncio.run(wait_and_close())
