"""Results that runqy stores, read from its Redis or through its API."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk import DAG
from redis import Redis

from runqy_provider.client.queues import hash_key
from runqy_provider.errors import (
    BadDelivery,
    JobFailed,
    JobVanished,
    Misconfigured,
    SinkUnavailable,
)
from runqy_provider.hooks.result import RunqyResultHook
from runqy_provider.hooks.runqy import RunqyHook
from runqy_provider.models import is_reference
from runqy_provider.sensors.runqy import RunqySensor
from runqy_sandbox.process.net import free_port
from tests.support import harness
from tests.support.harness import Run, outcome_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.stack import Stack

pytestmark = pytest.mark.usefixtures("connect", "no_settling")

SINK = "redis_storage"


@pytest.fixture(params=["redis", "http"])
def storage_access(request: pytest.FixtureRequest, connect: Callable[..., Any]) -> str:
    """How runqy's storage is read."""
    if request.param == "http":
        connect(without=("runqy_redis_conn_id",))
    return str(request.param)


def run_of(payload: Any, runqy_queue: str = "stored", **arguments: Any) -> Run:
    return harness.run_of(payload, runqy_queue, **{"sink": SINK, **arguments})


@pytest.mark.usefixtures("storage_access")
@pytest.mark.parametrize("value", [{"a": [1, None]}, None, "text", "7", 0])
def test_redis_storage_json_value_is_returned(value: Any) -> None:
    assert outcome_of(run_of({"value": value})) == value


@pytest.mark.usefixtures("storage_access")
def test_redis_storage_guide_task_code_result_is_returned() -> None:
    assert outcome_of(run_of({"numbers": [1, 2]}, "stored_guide")) == {"sum": 3}


def test_redis_storage_bare_value_over_http_is_bad_delivery(
    connect: Callable[..., Any], stack: Stack
) -> None:
    """Task code without the helper stores bare values; Redis keeps them unchanged."""
    redis = Redis(port=stack.sandbox.redis_port)
    run = run_of({}, "idle").execute()
    job = run.xcoms["runqy_job"]
    done = ["state", "completed", "result", "true"]
    redis.hset(hash_key(job["runqy_queue"], job["job_id"]), items=done)
    event = run.fire()
    assert run.resume(event).value is True

    connect(without=("runqy_redis_conn_id",))
    again = run_of({}, "idle").execute()
    job = again.xcoms["runqy_job"]
    redis.hset(hash_key(job["runqy_queue"], job["job_id"]), items=done)
    again.resume(again.fire())
    assert isinstance(again.error, BadDelivery)
    assert "changes the result" in str(again.error)


@pytest.mark.usefixtures("storage_access")
def test_redis_storage_bytes_are_returned_with_content_type() -> None:
    image = outcome_of(run_of({"bytes": 3000}))

    assert is_reference(image)
    assert (image["content_type"], image["size"]) == ("image/png", 3000)
    assert RunqyResultHook().read(image).bytes() == b"x" * 3000


@pytest.mark.usefixtures("storage_access")
def test_redis_storage_job_failed_raises_error_with_traceback() -> None:
    run = run_of({"error": "too dark"})

    with pytest.raises(JobFailed, match="ValueError: too dark") as caught:
        outcome_of(run)
    assert "raise ValueError" in str(caught.value.traceback)
    assert run.xcoms["runqy_delivery"]["status"] == "failed"


def test_redis_storage_job_given_up_raises_last_error(storage_access: str) -> None:
    run = run_of({"numbers": "no list"}, "stored_guide")

    with pytest.raises(JobFailed) as caught:
        outcome_of(run)
    expected = (
        "unsupported operand"
        if storage_access == "redis"
        else "gave up the job after 3"
    )
    assert expected in str(caught.value)


@pytest.mark.usefixtures("storage_access")
def test_redis_storage_result_too_large_fails_with_advice() -> None:
    with pytest.raises(JobFailed, match="object store"):
        outcome_of(run_of({"bytes": 9_000_000}))


@pytest.mark.usefixtures("storage_access")
def test_redis_storage_queue_without_storage_raises_job_vanished() -> None:
    """Runqy deletes such a job when it ends, and its result with it."""
    with pytest.raises(JobVanished):
        outcome_of(run_of({"value": 1}, "helper"))


@pytest.mark.usefixtures("storage_access")
def test_redis_storage_job_deleted_while_waiting_raises_job_vanished() -> None:
    run = run_of({}, "idle").execute()
    job = run.xcoms["runqy_job"]
    with RunqyHook() as hook:
        hook.delete_job(job["runqy_queue"], job["job_id"])

    run.resume(run.fire())
    assert isinstance(run.error, JobVanished)
    assert job["job_id"] in str(run.error)


@pytest.mark.usefixtures("storage_access")
def test_redis_storage_timeout_message_names_job() -> None:
    run = run_of({}, "idle", delivery_timeout=timedelta(seconds=1)).execute()
    run.resume(run.fire())

    message = str(run.error)
    assert run.xcoms["runqy_job"]["job_id"] in message
    assert "has not ended" in message
    assert "is pending" in message


def test_redis_storage_redis_unavailable_enqueues_nothing(
    connect: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(runqy_redis_conn_id="gone")
    monkeypatch.setenv("AIRFLOW_CONN_GONE", f"redis://127.0.0.1:{free_port()}")

    run = run_of({})
    with pytest.raises(SinkUnavailable, match="reach runqy's Redis"):
        outcome_of(run)
    assert "runqy_job" not in run.xcoms


def test_redis_storage_missing_connection_is_refused(
    connect: Callable[..., Any],
) -> None:
    connect(runqy_redis_conn_id="no_such_redis")

    with pytest.raises(Misconfigured, match="no_such_redis"):
        outcome_of(run_of({}))


@pytest.mark.usefixtures("storage_access")
def test_redis_storage_sensor_without_job_is_refused() -> None:
    with DAG("d", schedule=None):
        sensor = RunqySensor(task_id="s", delivery_id="d-1", sink=SINK)

    with pytest.raises(Misconfigured, match="job_id and runqy_queue"):
        outcome_of(Run(sensor))


@pytest.mark.usefixtures("storage_access")
def test_redis_storage_sensor_of_other_job_returns_value() -> None:
    run = run_of({"value": 9, "seconds": 0.2}).execute()
    submission = run.xcoms["runqy_job"]
    with DAG("d", schedule=None):
        sensor = RunqySensor(
            task_id="s",
            sink=SINK,
            **{
                name: submission[name]
                for name in ("delivery_id", "job_id", "runqy_queue")
            },
        )

    assert outcome_of(Run(sensor)) == 9
