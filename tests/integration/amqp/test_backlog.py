"""Messages that were published while the queue had no consumer."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest

from runqy_provider.errors import JobVanished
from runqy_provider.inbox.writer import InboxWriter
from runqy_provider.models import JobRef
from runqy_provider.settings import load_settings
from runqy_provider.sinks.amqp import source as amqp_source
from runqy_provider.sinks.registry import sink_from_uri
from runqy_provider.waiters.race import wait_any
from runqy_provider.waiters.waiter import Waiter, WaitTarget, close_waiters
from tests.integration.amqp.messages import publish, start_wait

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Mapping

    from pika.adapters.blocking_connection import BlockingChannel

    from runqy_provider.settings import Settings

pytestmark = pytest.mark.usefixtures("connect", "no_settling")


@pytest.fixture
def settings(queue: str) -> Settings:
    found = load_settings("runqy_default")
    sink_from_uri(f"amqp://mq/{queue}").bind(found).check()
    return found


def poll_once(settings: Settings, queue: str, delivery_id: str) -> Any:
    async def scenario() -> Any:
        arrival = await start_wait(settings, f"amqp://mq/{queue}", delivery_id, -1)
        await close_waiters()
        return arrival

    return asyncio.run(scenario())


def test_amqp_source_one_poll_finds_unconsumed_message(
    settings: Settings, channel: BlockingChannel, queue: str
) -> None:
    """Retries and poking sensors poll once."""
    for n in range(50):
        publish(channel, queue, {"task_id": f"other-{n}", "result": n})
    publish(channel, queue, {"task_id": f"d-{queue}", "result": 1})

    assert poll_once(settings, queue, f"d-{queue}") is not None
    assert poll_once(settings, queue, "missing") is None


class VanishedJobs:
    """A monitor whose every poll says that the job has vanished."""

    async def poll(self, keys: Collection[str]) -> Mapping[str, Any]:
        return {key: JobVanished("the job has vanished.") for key in keys}

    async def hints(self) -> AsyncIterator[str | None]:
        return
        yield

    async def aclose(self) -> None: ...


def test_amqp_source_backlog_keeps_waits_of_vanished_jobs(
    settings: Settings,
    channel: BlockingChannel,
    queue: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(amqp_source, "CATCH_UP_TIMEOUT", 0.3)
    real = InboxWriter.put

    async def slow(self: Any, *arguments: Any, **options: Any) -> Any:
        await asyncio.sleep(0.1)
        return await real(self, *arguments, **options)

    monkeypatch.setattr(InboxWriter, "put", slow)
    for n in range(30):
        publish(channel, queue, {"task_id": f"other-{n}", "result": n})
    publish(channel, queue, {"task_id": f"d-{queue}", "result": 1})

    async def scenario() -> Any:
        sink = sink_from_uri(f"amqp://mq/{queue}")
        targets = sink.bind(settings).targets(JobRef(f"d-{queue}"))
        monitor = WaitTarget(lambda: Waiter(VanishedJobs(), 60.0), "j")
        end = time.time() + 60
        arrival = await wait_any(targets, deadline=end, monitor=monitor)
        await close_waiters()
        return arrival

    assert asyncio.run(scenario()) is not None
