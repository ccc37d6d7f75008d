"""The steps of a batch: what is enqueued, and how it ends."""

from __future__ import annotations

import tempfile
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from runqy_provider.errors import (
    BatchFailed,
    DeliveryTimeout,
    Misconfigured,
)
from runqy_provider.jobs.batch.enqueue import CHUNK
from tests.unit.batch.conftest import handle, numbers

if TYPE_CHECKING:
    from tests.unit.fake_runqy import FakeRunqy


@pytest.mark.usefixtures("transport")
@pytest.mark.parametrize(
    "arguments",
    [{}, {"deferrable": False}, {"defer_after": timedelta(minutes=1)}],
    ids=["deferred", "in its slot", "in its slot at first"],
)
def test_batch_returns_results_in_order_of_payloads(
    task_of: Any, arguments: dict[str, Any]
) -> None:
    task = task_of(numbers(7), max_in_flight=3, **arguments)

    assert task.run() == list(range(7))
    receipt = task.xcoms["runqy_delivery"]
    counts = [receipt[name] for name in ("total", "completed", "failed")]
    assert counts == [7, 7, 0]
    assert max(task.server.chunks) <= 3


def test_batch_without_payloads_returns_empty_list(task_of: Any) -> None:
    assert task_of([]).run() == []


@pytest.mark.usefixtures("transport")
def test_batch_keeps_as_many_jobs_in_flight_as_may_be(
    task_of: Any, server: FakeRunqy
) -> None:
    server.handler = None
    task = task_of(numbers(10), max_in_flight=4)
    task.start()
    assert server.chunks == [4]

    for job_id in list(server.jobs)[:2]:
        server.run(job_id, handle)
    task.resume(task.fire())
    assert server.chunks == [4, 2]


def test_batch_is_enqueued_in_chunks(task_of: Any, server: FakeRunqy) -> None:
    server.handler = None
    task_of(numbers(CHUNK + 1), max_in_flight=2 * CHUNK).start()

    assert server.chunks == [CHUNK, 1]


@pytest.mark.parametrize("max_failed", [2, 0.34])
def test_batch_few_failed_returns_other_results(
    task_of: Any, max_failed: float
) -> None:
    payloads = [*numbers(4), {"error": "one"}, {"error": "two"}]
    task = task_of(payloads, max_failed=max_failed)

    assert task.run() == [0, 1, 2, 3, None, None]
    assert task.xcoms["runqy_delivery"]["failed"] == 2


def test_batch_too_many_failed_names_reasons(task_of: Any) -> None:
    task = task_of([*numbers(5), {"error": "no such voice"}])

    with pytest.raises(BatchFailed, match="no such voice") as caught:
        task.run()
    assert "1 of 6 jobs" in str(caught.value)
    assert "job 5: " in str(caught.value)


def test_batch_too_many_failed_enqueues_no_more(
    task_of: Any, server: FakeRunqy
) -> None:
    task = task_of([{"error": "all fail"}] * 100, max_in_flight=10)
    with pytest.raises(BatchFailed):
        task.run()

    assert task.batch.enqueued < 100


@pytest.mark.usefixtures("transport")
def test_batch_trigger_that_starts_twice_gives_the_same_event(task_of: Any) -> None:
    task = task_of(numbers(3))
    task.start()

    assert task.fire() == task.fire()


def test_batch_ended_by_airflow_takes_results_that_arrived(
    task_of: Any, server: FakeRunqy
) -> None:
    task = task_of(numbers(2))
    task.start()

    late = task.operator._start(task.context)
    assert late.resume_late(TimeoutError()) == [0, 1]


def test_batch_ended_by_airflow_without_results_names_its_error(
    task_of: Any, server: FakeRunqy
) -> None:
    server.handler = None
    task = task_of(numbers(2))
    task.start()

    with pytest.raises(DeliveryTimeout) as caught:
        task.operator._start(task.context).resume_late(TimeoutError())
    assert isinstance(caught.value.__cause__, TimeoutError)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"max_failed": 1.0}, "max_failed"),
        ({"max_failed": -1}, "max_failed"),
        ({"max_failed": float("nan")}, "max_failed"),
        ({"max_failed": True}, "max_failed"),
        ({"max_in_flight": 0}, "max_in_flight"),
        ({"returns": "list"}, "returns"),
        ({"sink": "redis_storage"}, "transport"),
        ({"manifest": "sql://db/results"}, "manifest="),
    ],
)
def test_batch_invalid_arguments_are_refused(
    task_of: Any, server: FakeRunqy, arguments: dict[str, Any], name: str
) -> None:
    with pytest.raises(Misconfigured, match=name):
        task_of(numbers(1), **arguments).run()
    assert server.enqueued == []


def test_batch_without_writable_temporary_folder_ends_as_usual(
    task_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_folder() -> str:
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", no_folder)
    monkeypatch.setattr(tempfile, "_gettempdir", no_folder)
    # More than what is kept in memory if there is such a folder.
    large = [{"value": "x" * 1_000_000} for _ in range(3)]

    assert len(task_of(large).run()) == 3
