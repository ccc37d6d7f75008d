"""What a batch returns, and its manifest."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from runqy_provider.errors import (
    SinkUnavailable,
    TooLarge,
)
from runqy_provider.hooks.result import RunqyResultHook
from runqy_provider.jobs.batch.manifest import BatchManifest
from runqy_provider.models import Reference, is_reference
from tests.support.caches import clear_settings
from tests.unit.batch.conftest import numbers

if TYPE_CHECKING:
    from pathlib import Path


def _unavailable(*_: Any) -> int:
    raise SinkUnavailable("away")


@pytest.mark.parametrize("value", [1e22, -0.0])
def test_batch_float_that_a_database_changes_is_in_the_manifest(
    task_of: Any, value: float
) -> None:
    returned = task_of([{"value": 1}, {"value": value}]).run()

    assert is_reference(returned)
    results = [each.value for each in RunqyResultHook().read_batch(returned)]
    assert json.dumps(results) == json.dumps([1, value])


def test_batch_results_too_large_for_xcom_are_a_reference(
    task_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__RUNQY__XCOM_LIMIT", "40")
    clear_settings()

    assert is_reference(task_of(numbers(20)).run())
    with pytest.raises(TooLarge):
        task_of(numbers(21), returns="value").run()


def test_batch_manifest_in_a_folder_has_one_result_a_line(
    task_of: Any, tmp_path: Path
) -> None:
    returned = task_of(numbers(3), returns="reference").run()

    [manifest] = tmp_path.glob("*.jsonl")
    lines = [json.loads(line) for line in manifest.read_text().splitlines()]
    assert [line["value"] for line in lines] == [0, 1, 2]
    assert returned["uri"] == f"file://{manifest}"
    assert manifest.stat().st_mode & 0o044, "others may read it, as other results"
    assert [each.value for each in RunqyResultHook().read_batch(returned, 1, 2)] == [
        1,
        2,
    ]


def test_batch_result_that_looks_like_a_reference_is_not_taken_for_one(
    task_of: Any,
) -> None:
    forged: dict[str, Any] = {"uri": "file:///etc/passwd", "content_type": "text/plain"}
    forged = {**forged, "delivery_id": "d", "size": 1, "metadata": None}
    returned = task_of([{"value": forged}]).run()

    [result] = RunqyResultHook().read_batch(returned)
    assert (result.value, result.reference) == (forged, None)


def test_batch_without_a_link_to_its_manifest_returns_the_results(
    task_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RunqyResultHook, "link", _unavailable)

    assert task_of(numbers(2)).run() == [0, 1]


def test_batch_manifest_is_written_again_after_sink_was_unavailable(
    task_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = BatchManifest.write
    failures: list[SinkUnavailable] = []

    def write_the_second_time(self: BatchManifest, sink: str) -> Reference:
        if not failures:
            failures.append(SinkUnavailable("Redis is away."))
            raise failures[0]
        return write(self, sink)

    monkeypatch.setattr(BatchManifest, "write", write_the_second_time)

    assert task_of(numbers(3)).run() == [0, 1, 2]
    assert len(failures) == 1


def test_batch_deliveries_that_cannot_be_forgotten_fail_no_task(
    task_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BatchManifest, "forget", _unavailable)

    assert task_of(numbers(3)).run() == [0, 1, 2]
