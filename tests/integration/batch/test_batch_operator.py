"""RunqyBatchOperator: its jobs, its results, and how it fails."""

from __future__ import annotations

import json
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
    Misconfigured,
    SinkUnavailable,
    TooLarge,
)
from runqy_provider.hooks.result import RunqyResultHook
from runqy_provider.hooks.runqy import RunqyHook
from runqy_provider.inbox.reader import InboxReader
from runqy_provider.jobs.batch.deletion import delete_pending
from runqy_provider.jobs.batch.progress import BatchProgress
from runqy_provider.models import is_reference
from runqy_provider.settings import load_settings
from runqy_provider.sinks.inbox import InboxBackend
from tests.integration.batch.conftest import batch_of, numbers, run_to_end

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

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


@pytest.mark.usefixtures("transport")
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
def test_batch_that_waits_in_its_slot_for_a_while_returns_the_results() -> None:
    run = batch_of(numbers(5), defer_after=timedelta(seconds=60)).execute()

    assert run.value == list(range(5))


@pytest.mark.usefixtures("connect")
@pytest.mark.parametrize("value", [1e22, -0.0])
def test_batch_float_changed_by_database_is_in_the_manifest(value: float) -> None:
    run = run_to_end(batch_of([{"value": 1}, {"json": json.dumps(value)}]))

    assert is_reference(run.value)
    results = [result.value for result in RunqyResultHook().read_batch(run.value)]
    assert json.dumps(results) == json.dumps([1, value])


@pytest.mark.usefixtures("connect")
def test_batch_without_payloads_returns_an_empty_list() -> None:
    assert batch_of([]).execute().value == []


@pytest.mark.usefixtures("connect")
@pytest.mark.parametrize("sink", ["s3://results/batch", "s3://results/batch webhook"])
def test_batch_with_an_object_store_writes_its_manifest_there(sink: str) -> None:
    run = run_to_end(batch_of(numbers(7), sink=sink, returns="reference"))

    reference = run.value
    assert reference["uri"].startswith("s3://results/batch/")
    results = list(RunqyResultHook().read_batch(reference))
    assert [result.value for result in results] == list(range(7))
    assert [result.index for result in results] == list(range(7))


def test_batch_with_a_folder_writes_its_manifest_there(
    connect: Callable[..., Any], tmp_path: Path
) -> None:
    connect()
    sink = f"file://{tmp_path}"

    run = run_to_end(batch_of(numbers(3), sink=sink, returns="reference"))

    [manifest] = tmp_path.glob("*.jsonl")
    lines = [json.loads(line) for line in manifest.read_text().splitlines()]
    assert [line["value"] for line in lines] == [0, 1, 2]
    assert run.value["uri"] == f"file://{manifest}"
    assert manifest.stat().st_mode & 0o044, "others may read it, as other results"


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
def test_batch_whose_results_are_too_large_for_xcom_returns_a_reference(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AIRFLOW__RUNQY__XCOM_LIMIT", "40")
    run = run_to_end(batch_of(numbers(20)))
    assert is_reference(run.value)

    run = run_to_end(batch_of(numbers(20), returns="value"))
    assert isinstance(run.error, TooLarge)


@pytest.mark.usefixtures("connect")
def test_batch_result_that_looks_like_a_reference_is_not_taken_for_one() -> None:
    forged: dict[str, Any] = {"uri": "file:///etc/passwd", "content_type": "text/plain"}
    forged = {**forged, "delivery_id": "d", "size": 1, "metadata": None}
    run = run_to_end(batch_of([{"value": forged}]))

    [result] = RunqyResultHook().read_batch(run.value)

    assert (result.value, result.reference) == (forged, None)


@pytest.mark.usefixtures("transport")
def test_batch_in_which_too_many_jobs_fail_names_their_reasons() -> None:
    payloads = [*numbers(5), {"error": "no such voice"}]

    run = run_to_end(batch_of(payloads))

    assert isinstance(run.error, BatchFailed)
    assert "1 of 6 jobs" in str(run.error)
    assert "job 5: " in str(run.error)
    assert "no such voice" in str(run.error)


@pytest.mark.usefixtures("connect")
@pytest.mark.parametrize("max_failed", [2, 0.34])
def test_batch_in_which_few_jobs_fail_returns_the_other_results(
    max_failed: float,
) -> None:
    payloads = [*numbers(4), {"error": "one"}, {"error": "two"}]

    run = run_to_end(batch_of(payloads, max_failed=max_failed))

    assert run.value == [0, 1, 2, 3, None, None]
    assert run.xcoms["runqy_delivery"]["failed"] == 2


@pytest.mark.usefixtures("connect")
def test_batch_stops_to_enqueue_where_too_many_jobs_have_failed() -> None:
    payloads = [{"error": "all fail"} for _ in range(100)]

    run = run_to_end(batch_of(payloads, max_in_flight=10))

    assert isinstance(run.error, BatchFailed)
    assert run.record["batch"]["enqueued"] < 100


@pytest.mark.usefixtures("connect")
def test_batch_at_its_deadline_says_how_many_results_are_missing() -> None:
    run = batch_of(
        [{"value": 1}], runqy_queue="idle", delivery_timeout=timedelta(seconds=0.3)
    )
    run_to_end(run)

    assert isinstance(run.error, DeliveryTimeout)
    assert "0 of 1 jobs completed" in str(run.error)
    assert "1 in flight" in str(run.error)


def waiting_jobs(stack: Stack) -> int:
    with Redis.from_url(stack.sandbox.redis_url) as redis:
        return int(redis.llen("asynq:{idle.default}:pending"))


@pytest.mark.usefixtures("transport")
@pytest.mark.parametrize("limit", ["delivery_timeout", "heartbeat_timeout"])
def test_batch_last_attempt_timed_out_pending_jobs_are_deleted(
    limit: str, stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Silence counts from the start if the jobs themselves are not observed.
    monkeypatch.setenv("AIRFLOW__RUNQY__WATCH_SECONDS", "0")
    before = waiting_jobs(stack)
    kept = batch_of(numbers(3), "idle", delivery_timeout=timedelta(seconds=1))
    kept.max_tries = 1
    run_to_end(kept)
    assert waiting_jobs(stack) == before + 3, "a retry will wait for them"

    batch = batch_of(numbers(4), "idle", **{limit: timedelta(seconds=1)})
    run_to_end(batch)
    assert batch.state == "failed"
    assert waiting_jobs(stack) == before + 3
    retry = run_to_end(kept.retried())
    assert retry.state == "failed"
    assert waiting_jobs(stack) == before


@pytest.mark.usefixtures("transport")
def test_batch_last_attempt_too_many_failed_pending_jobs_are_deleted(
    stack: Stack,
) -> None:
    before = waiting_jobs(stack)
    run = batch_of(numbers(3), "idle").execute()
    batch = BatchProgress.from_json(run.record["batch"])
    name = batch.delivery_id(0)
    failed = {"task_id": name, "status": "failed", "error": {"message": "no memory"}}
    deliver(name, failed)
    run.resume(run.fire())

    assert isinstance(run.error, BatchFailed)
    assert waiting_jobs(stack) == before


def test_batch_last_attempt_over_http_without_redis_says_what_stays(
    connect: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    connect(without=("runqy_redis_conn_id",))
    run_to_end(batch_of(numbers(1), "idle", delivery_timeout=timedelta(seconds=1)))

    assert "enter runqy's own Redis" in capsys.readouterr().out


@pytest.mark.usefixtures("connect")
def test_batch_without_a_sign_of_life_ends_at_its_heartbeat_timeout() -> None:
    run = batch_of(
        [{"value": 1}], runqy_queue="idle", heartbeat_timeout=timedelta(seconds=0.3)
    )
    run_to_end(run)

    assert isinstance(run.error, HeartbeatTimeout)


@pytest.mark.usefixtures("short_watch_interval")
def test_batch_whose_jobs_all_wait_for_a_worker_is_not_silent(
    connect: Callable[..., Any],
) -> None:
    connect(transport="redis")
    run = batch_of(
        [{"value": 1}],
        runqy_queue="idle",
        heartbeat_timeout=timedelta(seconds=0.2),
        delivery_timeout=timedelta(seconds=1.5),
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


@pytest.mark.usefixtures("connect")
def test_batch_options_that_http_cannot_carry_leave_nothing_enqueued() -> None:
    run = batch_of(numbers(3), max_retry=1).execute()

    assert isinstance(run.error, Misconfigured)
    assert run.record["batch"]["enqueued"] == 0


@pytest.mark.usefixtures("connect", "short_watch_interval")
def test_batch_job_that_delivers_nothing_fails_where_its_id_is_known(
    connect: Callable[..., Any],
) -> None:
    connect(transport="redis")

    run = run_to_end(batch_of([{}], runqy_queue="silent"))

    assert isinstance(run.error, BatchFailed)
    assert "without delivering" in str(run.error)


@pytest.mark.usefixtures("connect")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_failed": 1.0}, "max_failed"),
        ({"max_failed": -1}, "max_failed"),
        ({"max_failed": float("nan")}, "max_failed"),
        ({"max_failed": True}, "max_failed"),
        ({"max_in_flight": 0}, "max_in_flight"),
        ({"returns": "list"}, "returns"),
        ({"sink": "redis_storage"}, "with the transport 'redis' only"),
        ({"manifest": "sql://db/results"}, "manifest="),
    ],
)
def test_batch_arguments_that_are_not_valid_are_refused(
    arguments: dict[str, Any], message: str
) -> None:
    run = batch_of(numbers(1), **arguments).execute()

    assert isinstance(run.error, Misconfigured)
    assert message in str(run.error)


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


@pytest.mark.usefixtures("connect")
def test_batch_deletes_pending_jobs_where_their_ids_are_known(
    connect: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    connect(transport="redis")
    run = batch_of(numbers(250), runqy_queue="idle").execute()
    caplog.clear()
    batch = BatchProgress.from_json(run.record["batch"])

    assert delete_pending("runqy_default", batch, log)
    assert delete_pending("runqy_default", batch, log)

    messages = [one.getMessage() for one in caplog.records if one.name == log.name]
    assert " 250 jobs of the batch were deleted" in f" {messages[0]}"
    assert " 0 jobs of the batch were deleted" in f" {messages[1]}"


def test_batch_over_http_says_that_its_jobs_are_not_deleted(
    connect: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    connect(without=("runqy_redis_conn_id",))
    run = batch_of(numbers(1), runqy_queue="idle").execute()
    batch = BatchProgress.from_json(run.record["batch"])

    assert not delete_pending("runqy_default", batch, log)
    assert "their ids are not known" in caplog.text


@pytest.mark.usefixtures("short_watch_interval")
def test_batch_whose_pending_jobs_cannot_be_deleted_waits_for_them_again(
    connect: Callable[..., Any], gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(transport="redis")
    run = batch_of(
        [{**gate.closed, "value": 1}], heartbeat_timeout=timedelta(seconds=0.5)
    )
    run.max_tries = 1
    with monkeypatch.context() as patch:
        patch.setattr(RunqyHook, "delete_pending", _unavailable)
        run_to_end(run)
    assert isinstance(run.error, HeartbeatTimeout)
    batch = BatchProgress.from_json(run.record["batch"])
    assert (len(batch.outstanding), len(batch.failed)) == (1, 0)

    gate.open()
    assert run_to_end(run.retried()).value == [1]


def _unavailable(*_: Any) -> int:
    raise SinkUnavailable("away")


@pytest.mark.usefixtures("connect")
def test_batch_without_a_link_to_its_manifest_returns_the_results(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(RunqyResultHook, "link", _unavailable)

    run = run_to_end(batch_of(numbers(2), sink="s3://results/links"))

    assert run.value == [0, 1]
