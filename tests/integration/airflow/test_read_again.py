"""A result that has arrived, while its sink is unavailable for a moment."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest

from devtools.servers.switch import Switch
from runqy_provider.errors import SinkUnavailable
from runqy_provider.jobs import outcome
from runqy_provider.jobs.outcome import ReceivedDelivery
from runqy_provider.sinks.inbox import InboxBackend
from runqy_sandbox.process.net import free_port
from tests.integration.airflow.test_reattach import deliver, idle_run
from tests.integration.airflow.test_sensor import sensor, submitted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.stack import Stack


@pytest.fixture
def switch(
    stack: Stack, connect: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Switch]:
    """What the inbox's Redis is behind."""
    port = int(stack.sandbox.redis_url.rpartition(":")[2].split("/")[0])
    with Switch(port) as switch:
        monkeypatch.setenv("AIRFLOW_CONN_SWITCHED", f"redis://127.0.0.1:{switch.port}")
        connect(redis_conn_id="switched")
        yield switch


def test_operator_reads_a_result_again_while_redis_is_away(switch: Switch) -> None:
    run = idle_run()
    deliver(run, result=[1, 2])
    event = run.fire()
    redis, switch.leads_to = switch.leads_to, free_port()

    class Returns(logging.Handler):
        """Lets Redis come back once the task has noticed that it is away."""

        seen = ""

        def emit(self, record: logging.LogRecord) -> None:
            self.seen = self.seen or record.getMessage()
            switch.leads_to = redis

    handler = Returns()
    outcome.log.addHandler(handler)
    try:
        run.resume(event)
    finally:
        outcome.log.removeHandler(handler)

    assert (run.state, run.value) == ("success", [1, 2])
    assert "Could not read a delivery: Redis at 127.0.0.1:" in handler.seen
    assert handler.seen.endswith(" It will be tried again.")


def test_operator_redis_away_for_long_fails_with_that_reason(
    switch: Switch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outcome, "READ_AGAIN_FOR", 0.0)
    run = idle_run()
    deliver(run, result=1)
    event = run.fire()
    switch.leads_to = free_port()
    run.resume(event)

    assert isinstance(run.error, SinkUnavailable)


def test_operator_result_that_cannot_be_forgotten_is_returned(
    switch: Switch, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget = InboxBackend.forget
    run = idle_run()
    deliver(run, result=3)
    event = run.fire()

    def forget_when_away(self: InboxBackend, *uris: str) -> None:
        switch.leads_to = free_port()
        forget(self, *uris)

    monkeypatch.setattr(InboxBackend, "forget", forget_when_away)
    run.resume(event)

    assert (run.state, run.value) == ("success", 3)


@pytest.mark.usefixtures("connect", "no_settling")
def test_sensor_reads_a_result_again(monkeypatch: pytest.MonkeyPatch) -> None:
    run = sensor(submitted({"value": 3, "seconds": 0.3})).execute()
    assert run.state == "deferred"
    event = run.fire()
    read = ReceivedDelivery.read
    failures: list[SinkUnavailable] = []

    def read_the_second_time(self: ReceivedDelivery) -> None:
        if not failures:
            failures.append(SinkUnavailable("Redis is away."))
            raise failures[0]
        read(self)

    monkeypatch.setattr(ReceivedDelivery, "read", read_the_second_time)
    run.resume(event)

    assert (run.state, run.value, len(failures)) == ("success", 3, 1)
