"""RunqySensor: it waits for a job that another program enqueued."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk import DAG
from redis import Redis

from runqy_provider.airflow_compat import AirflowSensorTimeout
from runqy_provider.errors import (
    HeartbeatTimeout,
    JobFailed,
    JobVanished,
    Misconfigured,
)
from runqy_provider.hooks.runqy import RunqyHook
from runqy_provider.models import JobRef
from runqy_provider.sensors.runqy import RunqySensor
from runqy_sandbox.process.net import free_port
from tests.support.harness import Run, started

if TYPE_CHECKING:
    from tests.support.stack import Gate, Stack

pytestmark = pytest.mark.usefixtures("connect", "no_settling")


def submitted(payload: Any, sink: str = "webhook", queue: str = "helper") -> JobRef:
    with RunqyHook() as hook:
        return hook.submit(
            sink,
            runqy_queue=queue,
            payload=payload,
            delivery_id=f"sensor-{time.time_ns()}",
            deadline=time.time() + 60,
        )


def sensor(job: JobRef, **arguments: Any) -> Run:
    with DAG("d", schedule=None):
        task = RunqySensor(
            task_id="t",
            delivery_id=job.delivery_id,
            job_id=job.job_id,
            sink=job.sink,
            **arguments,
        )
    return Run(task)


@pytest.mark.parametrize("sink", ["webhook", "s3://results/sensor"])
@pytest.mark.parametrize("deferrable", [True, False])
def test_sensor_result_of_other_job_is_returned(
    sink: str, gate: Gate, *, deferrable: bool
) -> None:
    wait = gate.closed if deferrable else {"seconds": 0.3}
    job = submitted({"value": 3, **wait}, sink)
    run = sensor(job, deferrable=deferrable, poke_interval=0.1).execute()

    if deferrable:
        assert run.state == "deferred"
        gate.open()
        run.resume(run.fire())
    assert (run.state, run.value) == ("success", 3)


def test_sensor_result_already_delivered_needs_no_deferral() -> None:
    job = submitted({"value": 3})
    first = sensor(job, poke_interval=0.05, deferrable=False).execute()
    again = sensor(job).execute()

    assert (first.value, again.state, again.value) == (3, "success", 3)


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("delivery_id", None, "delivery_id of task 't' is None"),
        ("delivery_id", ["a"], "delivery_id of task 't' is a list"),
        ("delivery_id", {"a": 1}, "delivery_id of task 't' is a dict"),
        ("job_id", ["a"], "job_id of task 't' is a list"),
        ("runqy_queue", {}, "runqy_queue of task 't' is a dict"),
    ],
)
def test_sensor_template_field_not_text_is_refused(
    field: str, value: Any, text: str
) -> None:
    run = sensor(JobRef("d", "webhook"))
    setattr(run.task, field, value)

    assert isinstance(run.execute().error, Misconfigured)
    assert text in str(run.error)


def test_sensor_template_fields_with_numbers_are_texts() -> None:
    run = sensor(JobRef("d", "webhook"))
    for field, value in (("delivery_id", 12345), ("job_id", 777), ("sink", "webhook")):
        setattr(run.task, field, value)

    job = started(run).trigger.job
    assert (job.delivery_id, job.job_id) == ("12345", "777")


def test_sensor_reschedule_mode_frees_slot(gate: Gate) -> None:
    job = submitted({"value": 3, **gate.closed})
    run = sensor(job, deferrable=False, mode="reschedule").execute()

    assert run.state == "up_for_reschedule"


def test_sensor_job_failed_raises_error() -> None:
    job = submitted({"error": "too dark"})

    with pytest.raises(JobFailed, match="too dark"):
        raise sensor(job, deferrable=False, poke_interval=0.05).execute().error


@pytest.mark.parametrize("option", ["soft_fail", "never_fail"])
def test_sensor_job_failed_with_soft_fail_is_skipped(option: str) -> None:
    job = submitted({"error": "too dark"})
    run = sensor(job, **{option: True}).execute()
    if run.state == "deferred":
        run.resume(run.fire())

    assert run.state == "skipped"


def test_sensor_timeout_raises_sensor_timeout_with_reason() -> None:
    job = submitted({}, queue="idle")
    run = sensor(job, timeout=0.3).execute()

    with pytest.raises(AirflowSensorTimeout, match="No webhook was received at"):
        raise run.resume(run.fire()).error


def test_sensor_sink_defaults_to_sink_of_connection(connect: Any) -> None:
    connect(sink="s3://results/default-of-sensor")
    job = submitted({"value": 1}, "s3://results/default-of-sensor")
    with DAG("d", schedule=None):
        task = RunqySensor(
            task_id="t",
            delivery_id=job.delivery_id,
            deferrable=False,
            poke_interval=0.05,
        )

    assert Run(task).execute().value == 1


def test_sensor_invalid_delivery_id_is_refused() -> None:
    with DAG("d", schedule=None):
        task = RunqySensor(task_id="t", delivery_id="../../x")

    with pytest.raises(Misconfigured, match="not a valid delivery_id"):
        raise Run(task).execute().error


def test_sensor_poking_job_vanished_raises_job_vanished(
    monkeypatch: pytest.MonkeyPatch, stack: Stack
) -> None:
    monkeypatch.setenv("AIRFLOW__RUNQY__VANISHED_GRACE_SECONDS", "0.3")
    job = submitted({}, queue="idle")
    with Redis.from_url(stack.sandbox.redis_url) as redis:
        redis.delete(f"asynq:{{idle.default}}:t:{job.job_id}")
    run = sensor(job, deferrable=False, poke_interval=0.2, timeout=30).execute()

    with pytest.raises(JobVanished, match="Nothing was delivered"):
        raise run.error


def test_sensor_execution_timeout_shortens_deferred_wait() -> None:
    job = submitted({}, queue="idle")
    run = sensor(job, execution_timeout=timedelta(seconds=1)).execute()

    assert run.trigger.deadline <= time.time() + 1
    with pytest.raises(AirflowSensorTimeout, match="execution_timeout"):
        raise run.resume(run.fire()).error


def test_sensor_silent_job_raises_heartbeat_timeout(gate: Gate) -> None:
    job = submitted({"progress": 0.5, **gate.closed})
    run = sensor(job, heartbeat_timeout=timedelta(seconds=1)).execute()

    with pytest.raises(HeartbeatTimeout, match=r"heartbeat_timeout \(0:00:01\)"):
        raise run.resume(run.fire()).error


@pytest.mark.parametrize("arguments", [{}, {"soft_fail": True}])
def test_sensor_deferral_timeout_result_delivered_is_taken(
    arguments: dict[str, Any], gate: Gate
) -> None:
    job = submitted({"value": 3, **gate.closed})
    run = sensor(job, **arguments).execute()
    assert run.state == "deferred"
    gate.open()
    assert (
        run.fire()["kind"] == "arrived"
    )  # the result is delivered, and this event is lost

    assert run.time_out().value == 3


def test_sensor_deferral_timeout_without_result_raises_sensor_timeout() -> None:
    job = submitted({}, queue="idle")
    run = sensor(job).execute()
    with pytest.raises(AirflowSensorTimeout):
        raise run.time_out().error


def test_sensor_poking_inbox_unavailable_keeps_waiting(
    monkeypatch: pytest.MonkeyPatch, connect: Any, stack: Stack
) -> None:
    monkeypatch.setenv("AIRFLOW__RUNQY__VANISHED_GRACE_SECONDS", "0")
    job = submitted({}, queue="idle")
    with Redis.from_url(stack.sandbox.redis_url) as redis:
        redis.delete(f"asynq:{{idle.default}}:t:{job.job_id}")
    monkeypatch.setenv("AIRFLOW_CONN_GONE", f"redis://127.0.0.1:{free_port()}")
    connect(redis_conn_id="gone")
    run = sensor(job, deferrable=False, poke_interval=0.2, timeout=1).execute()

    with pytest.raises(AirflowSensorTimeout):
        raise run.error
