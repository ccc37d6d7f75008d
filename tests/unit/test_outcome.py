"""How a wait without a delivery ends: which error, and what it says."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from runqy_provider.airflow_compat import TaskDeferralTimeout
from runqy_provider.client.models import ACTIVE, Job
from runqy_provider.config import Config
from runqy_provider.connections import RunqyConnection
from runqy_provider.errors import (
    DeliveryTimeout,
    HeartbeatTimeout,
    JobVanished,
    Misconfigured,
    RunqyError,
    ServerUnavailable,
)
from runqy_provider.jobs.outcome import (
    TimeLimit,
    is_deferral_timeout,
    raise_not_arrived,
)
from runqy_provider.models import DEADLINE, ERROR, SILENT, DeliveryEvent, JobRef
from runqy_provider.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.fake_runqy import FakeRunqy

LIMIT = TimeLimit("delivery_timeout", timedelta(minutes=5))


@pytest.fixture
def settings() -> Settings:
    return Settings(RunqyConnection("runqy_default", "http://runqy"), Config())


@pytest.fixture
def job(server: FakeRunqy, tmp_path: Path) -> JobRef:
    """A job that is pending."""
    job_id = server.enqueue("q", {}).job_id
    return JobRef("the-delivery", f"file://{tmp_path}", job_id, "q.default")


def message_of(event: DeliveryEvent, settings: Settings, kind: type[RunqyError]) -> str:
    """Return the message of the error that an event raises, of this class."""
    with pytest.raises(RunqyError) as caught:
        raise_not_arrived(event, settings, LIMIT, None)
    assert type(caught.value) is kind
    return str(caught.value)


def test_outcome_deadline_names_limit_delivery_sink_and_last_poll(
    job: JobRef, settings: Settings
) -> None:
    event = DeliveryEvent(
        job, DEADLINE, progress="half", last_poll=1.0, last_error="Redis is away."
    )
    message = message_of(event, settings, DeliveryTimeout)

    for part in (
        "delivery_timeout (0:05:00)",
        "the-delivery",
        job.sink,
        "1970-01-01 00:00:01 UTC",
        "Redis is away.",
        "half",
    ):
        assert part in message


def test_outcome_deadline_with_refusal_says_that_in_place_of_the_sink(
    job: JobRef, settings: Settings
) -> None:
    event = DeliveryEvent(job, DEADLINE, refusal="The body was too large.")
    message = message_of(event, settings, DeliveryTimeout)

    assert "The body was too large." in message
    assert "No object" not in message


@pytest.mark.parametrize(
    ("state", "part"),
    [("pending", "Start a runqy worker"), (ACTIVE, "is active"), (None, "forgotten")],
)
def test_outcome_deadline_says_what_runqy_knows_of_the_job(
    job: JobRef, settings: Settings, server: FakeRunqy, state: str | None, part: str
) -> None:
    job_id = str(job.job_id)
    if state is None:
        server.jobs.clear()
    else:
        server.jobs[job_id] = Job(job_id, "q.default", state)

    message = message_of(DeliveryEvent(job, DEADLINE), settings, DeliveryTimeout)
    assert part in message
    assert job_id in message


def test_outcome_deadline_server_unavailable_is_said(
    job: JobRef, settings: Settings, server: FakeRunqy
) -> None:
    server.error = ServerUnavailable("runqy is away.")
    message = message_of(DeliveryEvent(job, DEADLINE), settings, DeliveryTimeout)

    assert "runqy is away." in message


def test_outcome_silence_names_heartbeat_limit_and_last_sign(
    job: JobRef, settings: Settings
) -> None:
    event = DeliveryEvent(job, SILENT, last_sign=1.0)
    with pytest.raises(HeartbeatTimeout) as caught:
        raise_not_arrived(event, settings, LIMIT, timedelta(seconds=9))

    assert "heartbeat_timeout (0:00:09)" in str(caught.value)
    assert "1970-01-01 00:00:01 UTC" in str(caught.value)


def test_outcome_error_is_raised_as_its_class(job: JobRef, settings: Settings) -> None:
    event = DeliveryEvent(
        job, ERROR, error="JobVanished", message="It is gone.", progress="half"
    )
    message = message_of(event, settings, JobVanished)

    assert "It is gone." in message
    assert "half" in message


def test_outcome_unknown_kind_is_misconfigured(job: JobRef, settings: Settings) -> None:
    message = message_of(DeliveryEvent(job, "new"), settings, Misconfigured)

    assert "version" in message


@pytest.mark.parametrize(
    ("execution_timeout", "name"),
    [
        (None, "delivery_timeout"),
        (timedelta(hours=2), "delivery_timeout"),
        (timedelta(minutes=5), "execution_timeout"),
    ],
)
def test_time_limit_is_the_shorter_one(
    execution_timeout: timedelta | None, name: str
) -> None:
    task: Any = SimpleNamespace(execution_timeout=execution_timeout)

    limit = TimeLimit.of(task, "delivery_timeout", timedelta(hours=1))
    assert limit.name == name
    assert limit.length == (execution_timeout if "ex" in name else timedelta(hours=1))


@pytest.mark.parametrize("seconds", [0, -1])
def test_time_limit_must_be_longer_than_zero(seconds: int) -> None:
    task: Any = SimpleNamespace(execution_timeout=None)

    with pytest.raises(Misconfigured, match="delivery_timeout"):
        TimeLimit.of(task, "delivery_timeout", timedelta(seconds=seconds))


def test_deferral_timeout_is_found_among_the_causes() -> None:
    wrapped = RuntimeError()
    wrapped.__cause__ = TaskDeferralTimeout("late")

    assert is_deferral_timeout(wrapped)
    assert not is_deferral_timeout(RuntimeError())
