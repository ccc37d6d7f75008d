# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Start a DAG when a delivery arrives on a channel."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseEventTrigger, TriggerEvent

from runqy_delivery.wire import COMPLETED
from runqy_provider.airflow_compat import (
    AirflowNotFoundException,
    SharedStreamProducer,
)
from runqy_provider.connections import DEFAULT_CONN_ID
from runqy_provider.errors import NoAccess, RunqyError
from runqy_provider.inbox.callback_url import check_channel
from runqy_provider.inbox.channel_reader import ChannelReader
from runqy_provider.settings import aload_settings
from runqy_provider.sinks.inbox import InboxBackend
from runqy_provider.waiters.waiter import backoff_delays

if TYPE_CHECKING:
    from collections.abc import (
        AsyncGenerator,
        AsyncIterator,
        Hashable,
        Iterator,
        Sequence,
    )

    from runqy_provider.airflow_compat import AdvanceItem
    from runqy_provider.inbox.channel_reader import Entry, Leftover

log = logging.getLogger(__name__)

#: Seconds between two tries to read a channel.
FIRST_DELAY, LONGEST_DELAY = 0.5, 30.0

#: Seconds between two checks for deliveries that tasks have left on a channel.
LOOK_EVERY = 15.0

#: Seconds after which a delivery that was left there fires again: the first time, and
#: at most.
FIRST_REMINDER, LAST_REMINDER = 60.0, 3600.0


class DeliveryChannelTrigger(BaseEventTrigger):
    """Fire for each delivery on a channel; for an ``AssetWatcher``.

    Each delivery fires at least once, also those of the time in which no triggerer ran.
    An event only says that the channel has deliveries: Airflow may start one run for
    several events. A run gets all deliveries by ``RunqyResultHook.take``, whichever
    event started it. A delivery that no run takes or acknowledges fires again: after a
    minute, then less and less often.

    The event's payload is plain JSON: ``channel``, ``delivery_id``, ``status``,
    ``delivered_at``, and ``reference``, which ``RunqyResultHook.read`` opens; for a
    failure ``error`` instead of the reference.

    :param channel: The channel; see ``RunqyHook.new_delivery_id``.
    :param runqy_conn_id: The runqy connection.
    :param with_failures: Whether failed jobs fire as well.
    """

    def __init__(
        self,
        channel: str,
        runqy_conn_id: str = DEFAULT_CONN_ID,
        *,
        with_failures: bool = False,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # Airflow's
        check_channel(channel)
        self.channel = channel
        self.runqy_conn_id = runqy_conn_id
        self.with_failures = with_failures

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "channel": self.channel,
                "runqy_conn_id": self.runqy_conn_id,
                "with_failures": self.with_failures,
            },
        )

    def shared_stream_key(self) -> Hashable:
        """Return what makes triggers share one reader: all of their arguments."""
        return ("runqy", *sorted(self.serialize()[1].items()))

    @classmethod
    def create_shared_stream_producer(cls, kwargs: dict[str, Any]) -> ChannelProducer:
        """Return the reader; Airflow acknowledges what it has stored."""
        return ChannelProducer(**kwargs)

    async def filter_shared_stream(
        self, shared_stream: AsyncIterator[Any]
    ) -> AsyncIterator[TriggerEvent]:
        async for event in shared_stream:
            yield TriggerEvent(event)  # type: ignore[no-untyped-call] # Airflow's

    async def run(self) -> AsyncGenerator[TriggerEvent, None]:
        """Yield an event for each delivery, if Airflow does not share streams."""
        log.info(
            "This Airflow does not share the streams of triggers: an event may be lost "
            "if the triggerer is killed before it has stored it."
        )
        producer = self.create_shared_stream_producer(self.serialize()[1])
        try:
            async for event, entry_id in producer.open_stream():
                yield TriggerEvent(event)  # type: ignore[no-untyped-call] # Airflow's
                await producer.acknowledge([entry_id])
        finally:
            await producer.aclose()


class ChannelProducer(SharedStreamProducer):
    """Reads a channel until it is closed; retries if Redis is unavailable.

    Args:
        channel: The channel.
        runqy_conn_id: The runqy connection.
        with_failures: Whether failed jobs are of interest.
    """

    def __init__(
        self, channel: str, runqy_conn_id: str, *, with_failures: bool
    ) -> None:
        self._channel = channel
        self._conn_id = runqy_conn_id
        self._with_failures = with_failures
        self._reader: ChannelReader | None = None
        self._ttl = 0.0
        self._reminders = Reminders()
        self._next_look = 0.0

    async def open_stream(self) -> AsyncGenerator[tuple[Any, str], None]:
        """Yield each delivery's event, and its id in the channel."""
        delays = self._delays()
        while True:
            try:
                entries = await self._next_entries()
            except (RunqyError, AirflowNotFoundException) as error:
                delay = next(delays)
                log.warning(
                    "Channel %r cannot be read, will retry in %.1f s: %s",
                    self._channel,
                    delay,
                    error,
                )
                await asyncio.sleep(delay)
                continue
            delays = self._delays()
            for entry_id, event in entries:
                if self._is_wanted(event):
                    yield event, entry_id
                else:
                    await self.acknowledge([entry_id])

    async def advance(self, batch: Sequence[AdvanceItem]) -> None:
        """Acknowledge the deliveries whose events Airflow has stored."""
        done = [item.broker_payload for item in batch if not item.outcome.failed]
        if done:
            await self.acknowledge(done)

    async def acknowledge(self, entry_ids: Sequence[str]) -> None:
        """Record that deliveries are handled; try again if Redis is unavailable."""
        delays = self._delays()
        while True:
            try:
                await (await self._open()).acknowledge(entry_ids)
            except RunqyError as error:
                delay = next(delays)
                log.warning("Will be acknowledged again in %.1f s: %s", delay, error)
                await asyncio.sleep(delay)
            else:
                return

    async def aclose(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            await reader.aclose()

    def _is_wanted(self, event: dict[str, Any]) -> bool:
        return self._with_failures or event["status"] == COMPLETED

    async def _next_entries(self) -> list[Entry]:
        """Return deliveries that came, and from time to time those that fire again."""
        reader, now = await self._open(), time.monotonic()
        if now < self._next_look:
            return await reader.read()
        self._next_look = now + LOOK_EVERY
        try:
            left = await reader.leftovers(self._is_wanted, self._ttl)
        except NoAccess as error:
            # A user of Redis that was made for an earlier version: deliveries still
            # fire.
            log.warning(
                "Deliveries on channel %r that no run takes do not fire again: the "
                "user of Redis lacks a permission that the documentation lists. %s",
                self._channel,
                error,
            )
            self._next_look = float("inf")
            return []
        for each in (due := self._reminders.due(left, now)):
            log.info(
                "Delivery %s on channel %r fires again: consumer %r has not taken or "
                "acknowledged it.",
                each.entry[1]["delivery_id"],
                self._channel,
                each.consumer,
            )
        # Several consumers may have left the same delivery.
        return list(dict([each.entry for each in due]).items())

    async def _open(self) -> ChannelReader:
        if self._reader is None:
            settings = await aload_settings(self._conn_id)
            self._ttl = settings.config.unread_ttl_seconds
            backend = InboxBackend(settings)
            # Triggers with other arguments are another group, which reads everything
            # itself.
            group = "all" if self._with_failures else COMPLETED
            self._reader = ChannelReader(
                backend.redis, backend.namespace, self._channel, f"airflow-{group}"
            )
            # What came while no trigger ran fires before anything fires again.
            self._next_look = time.monotonic() + LOOK_EVERY
        return self._reader

    @staticmethod
    def _delays() -> Iterator[float]:
        return backoff_delays(FIRST_DELAY, LONGEST_DELAY)


class Reminders:
    """Says when a delivery that was left on a channel is due to fire again."""

    def __init__(self) -> None:
        #: For each consumer: its mark, since when, and the seconds to wait.
        self._known: dict[str, tuple[str, float, float]] = {}

    def due(self, left: Sequence[Leftover], now: float) -> list[Leftover]:
        """Return those that are due.

        Args:
            left: What is left now.
            now: The time, by a monotonic clock.
        """
        known, self._known = self._known, {}
        due = []
        for each in left:
            mark, since, wait = known.get(each.consumer, ("", now, FIRST_REMINDER))
            if mark != each.mark:
                since, wait = now, FIRST_REMINDER
            if now - since >= wait:
                due.append(each)
                since, wait = now, min(2 * wait, LAST_REMINDER)
            self._known[each.consumer] = (each.mark, since, wait)
        return due
