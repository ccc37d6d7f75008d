"""Where the payloads of a batch come from, and which are refused."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

import pytest

from runqy_provider.decorators.runqy import runqy_batch_task
from runqy_provider.errors import InvalidPayload
from runqy_provider.jobs.batch.enqueue import CHUNK_BYTES, _chunks
from runqy_provider.jobs.batch.payloads import NumberedPayload, Payloads
from tests.unit.batch.conftest import numbers

if TYPE_CHECKING:
    from pathlib import Path

    from runqy_provider.settings import Settings


def read(given: Any) -> Payloads:
    """Read payloads that a task has, which come from no object."""
    return Payloads.read(given, "q", cast("Settings", None), may_be_uri=False)


@pytest.mark.parametrize(
    ("payloads", "part"),
    [
        ([{"value": 1}, 2], "number 1 "),
        ([{"task_id": "x"}], "'task_id'"),
        ({"value": 1}, "list"),
        ("[1,", "not JSON"),
        (7, "int"),
    ],
)
def test_batch_invalid_payloads_are_refused(payloads: Any, part: str) -> None:
    with pytest.raises(InvalidPayload, match=part):
        read(payloads)


@pytest.mark.parametrize(
    "payloads", [json.dumps(numbers(3)), tuple(numbers(3)), map(dict, numbers(3))]
)
def test_batch_payloads_come_from_any_iterable(payloads: Any) -> None:
    with read(payloads) as found:
        assert found.total == 3


def test_batch_payloads_refused_leave_no_record(task_of: Any) -> None:
    task = task_of([{"task_id": "x"}])
    with pytest.raises(InvalidPayload):
        task.run()

    assert not task.store


def test_batch_text_of_another_task_does_not_name_a_file(
    task_of: Any, tmp_path: Path
) -> None:
    path = tmp_path / "secret.jsonl"
    path.write_text('{"password": "secret"}')
    task = task_of("{{ ti.xcom_pull('other') }}")
    task.operator.payloads = f"file://{path}"

    with pytest.raises(InvalidPayload, match="in the DAG"):
        task.run()


@pytest.mark.parametrize(
    ("line", "part"),
    [
        (b'{"text": "\\ud800"}', "number 0 "),
        (b'{"text": ', "Line 1 "),
        (b"[]", "number 0 "),
    ],
)
def test_batch_invalid_line_of_an_object_is_refused(
    line: bytes, part: str, task_of: Any, tmp_path: Path
) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(line)

    with pytest.raises(InvalidPayload, match=part):
        task_of(f"file://{path}").run()


def test_batch_payloads_come_from_an_object_with_one_a_line(
    task_of: Any, tmp_path: Path
) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text("\n".join(map(json.dumps, numbers(5))) + "\n\n")

    assert task_of(f"file://{path}").run() == [0, 1, 2, 3, 4]


def test_batch_decorator_takes_no_payloads() -> None:
    with pytest.raises(TypeError, match="payloads"):
        runqy_batch_task(runqy_queue="helper", payloads=[])


def test_batch_payload_has_the_size_by_which_chunks_are_made() -> None:
    with read([{"text": "x" * length} for length in (10, 1000)]) as payloads:
        sizes = [each.size for each in payloads.numbered(range(2))]
    large = [NumberedPayload(n, {}, CHUNK_BYTES // 2) for n in range(5)]

    assert sizes[1] - sizes[0] == 990
    assert [len(chunk) for chunk in _chunks(large)] == [2, 2, 1]
