"""The public interface as users write it; mypy checks this file, nothing runs it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, BinaryIO

from airflow.sdk import DAG

from runqy_delivery import Content, DeliveryRequest, Result, delivers, progress
from runqy_provider.decorators.runqy import runqy_task
from runqy_provider.errors import DeliveryTimeout, JobFailed, RunqyError
from runqy_provider.hooks.result import RunqyResultHook
from runqy_provider.hooks.runqy import RunqyHook
from runqy_provider.models import JobRef, Reference, is_reference
from runqy_provider.operators.runqy import RunqyOperator
from runqy_provider.sensors.runqy import RunqySensor
from runqy_provider.sinks import (
    Arrival,
    BoundSink,
    NotThere,
    S3Sink,
    Sink,
    SqlSink,
    StoredResult,
    WebhookSink,
    from_inline_value,
)
from runqy_provider.triggers.channel import DeliveryChannelTrigger
from runqy_provider.triggers.delivery import DeliveryTrigger
from runqy_sandbox.sandbox import Sandbox

with DAG("typed", schedule=None):
    operator = RunqyOperator(
        task_id="transcribe",
        runqy_queue="inference.high",
        payload={"input": "{{ ds }}"},
        sink=["s3://results", WebhookSink()],
        delivery_timeout=timedelta(hours=2),
        heartbeat_timeout=None,
        end_from_trigger=True,
        returns="reference",
    )
    sensor = RunqySensor(
        task_id="wait", delivery_id="d-1", sink=S3Sink("results", presign=False)
    )

    @runqy_task(runqy_queue="render", sink="s3://results")
    def render(scene: int) -> dict[str, int]:
        """Return the payload."""
        return {"scene": scene}

    render.expand(scene=[1, 2])
    RunqyOperator.partial(task_id="many", runqy_queue="q").expand(payload=[{"n": 1}])


channel = DeliveryChannelTrigger("transcripts", with_failures=True)


def hooks() -> None:
    """Enqueue a job, and read its result."""
    with RunqyHook("runqy_default", retry_for=5) as hook:
        job: JobRef = hook.submit(
            "webhook",
            runqy_queue="inference",
            payload={},
            delivery_id=hook.new_delivery_id("transcripts"),
            deadline=0.0,
        )
        job_id: str | None = job.job_id
        state: str = hook.get_job(job_id or "").state
    results = RunqyResultHook()
    stream: BinaryIO = results.read({"uri": state}).stream()
    value: Any = results.read(Reference("s3://b/k", "", None, "d-1")).json()
    taken: list[dict[str, Any]] = results.take("transcripts", "archive", most=10)
    assert is_reference(value) or stream or taken


def errors() -> None:
    """All errors have one base class."""
    try:
        hooks()
    except (JobFailed, DeliveryTimeout):
        pass
    except RunqyError as error:
        message: str = str(error)
        assert message


def sinks(bound: BoundSink) -> list[Sink]:
    """Sinks are values; bound sinks work."""
    request: DeliveryRequest = bound.request("d-1", 0.0)
    assert request.delivery_id
    return [S3Sink("results"), SqlSink.from_uri("sql://pg/results"), WebhookSink()]


def foreign_sink(bound: BoundSink, arrival: Arrival) -> StoredResult:
    """What a sink of another package uses comes from one module."""
    if arrival.status == "unknown":
        raise NotThere(arrival.result_uri)
    return from_inline_value(
        "{}",
        arrival.result_uri,
        arrival.delivered_at,
        delivery_id="d-1",
        open_url=bound.open_url,
    )


def deliver(request: DeliveryRequest, content: Content) -> bytes:
    """Such a sink's part of the worker side."""
    return content.to_text(request)


@delivers
def handle(payload: dict[str, Any]) -> Result:
    """Task code on the worker side."""
    progress(0.5, "half")
    return Result(b"x", content_type="image/png", metadata=payload)


def trigger(arguments: dict[str, Any]) -> DeliveryTrigger:
    """A trigger is made of the arguments that Airflow stores."""
    return DeliveryTrigger(**arguments)


def sandbox() -> dict[str, dict[str, Any]]:
    """A sandbox for tests of DAGs."""
    with Sandbox({"queues": {}}) as box:
        return box.connections(sink="s3://results")
