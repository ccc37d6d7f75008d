"""Metrics, span attributes and lineage of a task, as Airflow passes them on."""

from __future__ import annotations

import contextlib
import time
from datetime import timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.openlineage.extractors import OperatorLineage
from airflow.sdk import Asset
from opentelemetry.sdk.trace import TracerProvider

from runqy_provider.errors import RunqyError
from runqy_provider.jobs.lineage import lineage_of
from runqy_provider.jobs.telemetry import count_enqueued
from runqy_provider.models import JobRef
from runqy_provider.operators.runqy import RunqyOperator
from tests.support.harness import outcome_of, run_of, started
from tests.support.versions import metrics_go_to

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.usefixtures("connect", "no_settling")


class Recorder:
    """A backend of Airflow's statistics that keeps what it gets."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, Any, dict[str, str]]] = []

    def incr(self, stat: str, count: int = 1, *, tags: Any = None, **_: Any) -> None:
        self.seen.append((stat, count, tags or {}))

    def gauge(self, stat: str, value: float, *, tags: Any = None, **_: Any) -> None:
        self.seen.append((stat, value, tags or {}))

    def timing(self, stat: str, dt: Any, *, tags: Any = None, **_: Any) -> None:
        self.seen.append((stat, dt, tags or {}))

    def timer(self, *_: Any, **__: Any) -> Any:
        """Measure what Airflow itself times, which is not recorded."""
        return contextlib.nullcontext(SimpleNamespace(duration=0.0))

    def of(self, stat: str) -> list[tuple[Any, dict[str, str]]]:
        """Return values and tags of one metric."""
        return [(value, tags) for name, value, tags in self.seen if name == stat]


@pytest.fixture
def metrics() -> Iterator[Recorder]:
    """What Airflow's statistics got during the test."""
    recorder = Recorder()
    with metrics_go_to(recorder):
        yield recorder


def test_metrics_of_task_with_result_count_and_time_it(metrics: Recorder) -> None:
    began = time.time()
    assert outcome_of(run_of({"value": 1, "seconds": 0.5})) == 1
    tags = {"runqy_queue": "helper.default", "sink": "webhook"}

    assert metrics.of("runqy.jobs.enqueued") == [(1, tags)]
    assert metrics.of("runqy.jobs.delivered") == [(1, tags)]
    assert [value for value, _ in metrics.of("runqy.jobs.waiting")] == [1, 0]
    [(wait, _)] = metrics.of("runqy.jobs.wait")
    [(lag, _)] = metrics.of("runqy.jobs.lag")
    assert 500 <= wait <= (time.time() - began) * 1000
    assert 0 <= lag <= (time.time() - began) * 1000
    assert not metrics.of("runqy.jobs.failed")


def test_metrics_of_failed_task_have_its_reason(metrics: Recorder) -> None:
    limit = timedelta(seconds=0.5)
    for payload, queue, arguments in (
        ({"error": "broken"}, "helper", {}),
        ({}, "idle", {"delivery_timeout": limit}),
    ):
        with pytest.raises(RunqyError):
            outcome_of(run_of(payload, queue, sink="s3://results/m", **arguments))

    reasons = [tags["reason"] for _, tags in metrics.of("runqy.jobs.failed")]
    assert reasons == ["JobFailed", "DeliveryTimeout"]
    sinks = {tags["sink"] for _, tags in metrics.of("runqy.jobs.failed")}
    assert sinks == {"s3"}  # not the name of the bucket


def test_enqueued_job_is_named_in_the_current_span() -> None:
    tracer = TracerProvider().get_tracer("test")
    job = JobRef("d", "s3://secret-bucket/x webhook", "j", "q.default")
    with tracer.start_as_current_span("task") as span:
        count_enqueued(job)

    assert dict(span.attributes) == {  # type: ignore[attr-defined] # of the SDK's span
        "runqy.job_id": "j",
        "runqy.delivery_id": "d",
        "runqy.queue": "q.default",
        "runqy.sink": "s3",
    }


def test_outlet_asset_event_has_the_reference() -> None:
    asset = Asset("rendered")
    run = run_of({"bytes": 2000}, sink="s3://results/outlets", outlets=[asset])
    assert outcome_of(run)["size"] == 2000

    [event] = run.last.msg.outlet_events
    reference = event["extra"]["runqy_delivery"]
    assert reference["uri"].startswith("s3://results/outlets/")
    assert (reference["size"], reference["content_type"]) == (2000, "image/png")


def test_lineage_of_object_names_dataset_size_and_job() -> None:
    run = run_of({"bytes": 2000}, sink="s3://results/lineage")
    outcome_of(run)
    receipt = run.xcoms["runqy_delivery"]
    lineage = lineage_of(receipt)

    [output] = lineage.outputs
    assert output.namespace == "s3://results"
    assert output.name == f"lineage/{receipt['delivery_id']}"
    statistics: Any = (output.outputFacets or {})["outputStatistics"]
    assert statistics.size == 2000
    facet: Any = lineage.run_facets["runqy_job"]
    assert facet.jobId == run.xcoms["runqy_job"]["job_id"]


def test_lineage_of_value_in_inbox_has_no_dataset() -> None:
    run = run_of({"value": 1})
    outcome_of(run)
    lineage = lineage_of(run.xcoms["runqy_delivery"])

    assert lineage.outputs == []
    assert "runqy_job" in lineage.run_facets


def test_operator_lineage_without_result_is_empty() -> None:
    task = run_of({}).task
    assert isinstance(task, RunqyOperator)
    assert task.get_openlineage_facets_on_complete(None) == OperatorLineage()


def test_queue_link_is_the_queue_in_the_dashboard() -> None:
    run = started(run_of({}, "idle"))
    url = run.xcoms["_link_QueueLink"]

    assert url.endswith("/monitoring/queues/idle.default")
