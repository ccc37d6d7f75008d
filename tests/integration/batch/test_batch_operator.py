"""RunqyBatchOperator: its jobs, its results, and how it fails."""

from __future__ import annotations

import logging
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from redis import Redis

from runqy_provider.errors import (
    BatchFailed,
    DeliveryTimeout,
    HeartbeatTimeout,
)
from runqy_provider.hooks.result import RunqyResultHook
from runqy_provider.inbox.reader import InboxReader
from runqy_provider.jobs.batch.progress import BatchProgress
from runqy_provider.models import is_reference
from runqy_provider.settings import load_settings
from runqy_provider.sinks.inbox import InboxBackend
from tests.integration.batch.conftest import batch_of, numbers, run_to_end

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.harness import Run
    from tests.support.stack import Gate, Stack

log = logging.getLogger("tests.batch")

pytestmark = pytest.mark.usefixtures("no_settling", "short_intervals")


@pytest.mark.usefixtures("transport")
def test_batch_returns_the_results_in_the_order_of_the_payloads() -> None:
    payloads = [{"value": 0, "seconds": 0.3}, *numbers(30)[1:]]

    run = run_to_end(batch_of(payloads))

    assert run.value == list(range(30))
    receipt = run.xcoms["runqy_delivery"]
    counts = {name: receipt[name] for name in ("total", "completed", "failed")}
    assert counts == {"total": 30, "completed": 30, "failed": 0}


@pytest.mark.usefixtures("connect")
def test_batch_enqueues_no_more_jobs_than_may_be_in_flight(gate: Gate) -> None:
    payloads = [{**gate.closed, "value": number} for number in range(10)]
    run = batch_of(payloads, max_in_flight=4).execute()

    assert run.state == "deferred"
    assert run.record["batch"]["enqueued"] == 4
    gate.open()
    run.resume(run.fire())
    assert run.record["batch"]["enqueued"] > 4
    while run.state == "deferred":
        run.resume(run.fire())
    assert run.value == list(range(10))


@pytest.mark.usefixtures("connect")
def test_batch_that_waits_in_its_slot_returns_the_results() -> None:
    run = batch_of(numbers(25), max_in_flight=5, deferrable=False).execute()

    assert run.value == list(range(25))


@pytest.mark.usefixtures("connect")
@pytest.mark.parametrize("sink", ["s3://results/batch", "s3://results/batch webhook"])
def test_batch_with_an_object_store_writes_its_manifest_there(sink: str) -> None:
    run = run_to_end(batch_of(numbers(7), sink=sink, returns="reference"))

    reference = run.value
    assert reference["uri"].startswith("s3://results/batch/")
    results = list(RunqyResultHook().read_batch(reference))
    assert [result.value for result in results] == list(range(7))
    assert [result.index for result in results] == list(range(7))


@pytest.mark.usefixtures("connect")
def test_batch_manifest_in_the_inbox_is_read_in_parts() -> None:
    run = run_to_end(batch_of(numbers(20), returns="reference"))

    found = RunqyResultHook().read_batch(run.value, first=5, last=7)

    assert [result.value for result in found] == [5, 6, 7]


@pytest.mark.usefixtures("connect")
def test_batch_gives_references_to_results_that_are_not_json() -> None:
    sink = "s3://results/images"
    run = run_to_end(batch_of([{"bytes": 5}, {"value": 1}], sink=sink))

    image, one = run.value
    assert is_reference(image)
    assert RunqyResultHook().read(image).bytes() == b"xxxxx"
    assert one == 1


@pytest.mark.usefixtures("connect")
def test_batch_in_which_too_many_jobs_fail_names_their_reasons() -> None:
    payloads = [*numbers(5), {"error": "no such voice"}]

    run = run_to_end(batch_of(payloads))

    assert isinstance(run.error, BatchFailed)
    assert "no such voice" in str(run.error)


def waiting_jobs(stack: Stack) -> int:
    with Redis.from_url(stack.sandbox.redis_url) as redis:
        return int(redis.llen("asynq:{idle.default}:pending"))


@pytest.mark.usefixtures("transport")
def test_batch_last_attempt_timed_out_pending_jobs_are_deleted(stack: Stack) -> None:
    before = waiting_jobs(stack)
    run = batch_of(numbers(3), "idle", delivery_timeout=timedelta(seconds=0.5))
    run.max_tries = 1
    run_to_end(run)
    assert waiting_jobs(stack) == before + 3, "a retry will wait for them"

    retry = run_to_end(run.retried())
    assert isinstance(retry.error, DeliveryTimeout)
    assert waiting_jobs(stack) == before


@pytest.mark.usefixtures("short_watch_interval")
def test_batch_whose_jobs_all_wait_for_a_worker_is_not_silent(
    connect: Callable[..., Any],
) -> None:
    connect(transport="redis")
    run = batch_of(
        [{"value": 1}],
        runqy_queue="idle",
        heartbeat_timeout=timedelta(seconds=0.2),
        delivery_timeout=timedelta(seconds=1),
    )
    run_to_end(run)

    assert isinstance(run.error, DeliveryTimeout)


@pytest.mark.usefixtures("short_watch_interval")
def test_batch_whose_job_runs_and_gives_no_sign_of_life_is_silent(
    connect: Callable[..., Any], gate: Gate
) -> None:
    connect(transport="redis")
    run = batch_of(
        [{**gate.closed, "value": 1}], heartbeat_timeout=timedelta(seconds=0.5)
    )
    run.max_tries = 1
    run_to_end(run)
    assert isinstance(run.error, HeartbeatTimeout)

    gate.open()
    wait_for_delivery(run)
    retry = run.retried().execute()
    assert retry.value == [1], "what came after the timeout is taken"


def wait_for_delivery(run: Run) -> None:
    """Wait until the first job of a batch has delivered to the inbox."""
    batch = BatchProgress.from_json(run.record["batch"])
    redis = load_settings("runqy_default").redis
    assert redis is not None
    end = time.monotonic() + 60
    with InboxReader(redis, "runqy_default") as reader:
        while reader.read_small([batch.delivery_id(0)], 10_000) == [None]:
            assert time.monotonic() < end, "it has not delivered"
            time.sleep(0.05)


@pytest.mark.usefixtures("connect")
def test_batch_delivery_that_names_another_place_fails_its_job_only() -> None:
    payloads = [{"value": 0}, {"value": 1}]
    run = batch_of(payloads, runqy_queue="idle", max_failed=1).execute()
    batch = BatchProgress.from_json(run.record["batch"])
    for index in (0, 1):
        name = batch.delivery_id(index)
        result = {"result": "good"} if index else {"result_url": "s3://other/secret"}
        deliver(name, {"task_id": name, "status": "completed", **result})

    run.resume(run.fire())

    assert run.value == [None, "good"]
    assert run.xcoms["runqy_delivery"]["failed"] == 1


def deliver(delivery_id: str, body: dict[str, Any]) -> None:
    """Deliver as task code that follows runqy's guide."""
    settings = load_settings("runqy_default")
    url = InboxBackend(settings).webhook_url(delivery_id, time.time() + 60)
    httpx.post(url, json=body).raise_for_status()


@pytest.mark.usefixtures("connect", "short_watch_interval")
def test_batch_job_that_delivers_nothing_fails_where_its_id_is_known(
    connect: Callable[..., Any],
) -> None:
    connect(transport="redis")

    run = run_to_end(batch_of([{}], runqy_queue="silent"))

    assert isinstance(run.error, BatchFailed)
    assert "without delivering" in str(run.error)


def test_batch_with_another_sink_keeps_its_manifest_where_the_task_says(
    connect: Callable[..., Any],
) -> None:
    connect(transport="redis")

    run = run_to_end(
        batch_of(
            numbers(3),
            runqy_queue="stored",
            sink="redis_storage",
            manifest="webhook",
            returns="reference",
        )
    )

    assert run.value["uri"].startswith("inbox://runqy_default/")
    results = RunqyResultHook().read_batch(run.value)
    assert [result.value for result in results] == [0, 1, 2]
