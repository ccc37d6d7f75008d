"""Where the payloads of a batch come from, and which are refused."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

import pytest
from airflow.sdk import DAG, task

from runqy_provider.decorators.runqy import runqy_batch_task
from runqy_provider.errors import InvalidPayload
from runqy_provider.jobs.batch.enqueue import CHUNK_BYTES, _chunks
from runqy_provider.jobs.batch.payloads import NumberedPayload, Payloads
from runqy_provider.sinks.object_store.s3_store import s3_client
from tests.integration.batch.conftest import batch_of, numbers, run_to_end
from tests.support.harness import Run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from runqy_provider.settings import Settings

pytestmark = pytest.mark.usefixtures("no_settling", "short_intervals")


@pytest.mark.usefixtures("connect")
def test_batch_text_of_another_task_does_not_name_a_file(tmp_path: Path) -> None:
    path = tmp_path / "secret.jsonl"
    path.write_text('{"password": "secret"}')
    run = batch_of("{{ ti.xcom_pull('other') }}")
    run.task.payloads = f"file://{path}"

    run.execute()

    assert isinstance(run.error, InvalidPayload)
    assert "must be written in the DAG" in str(run.error)


@pytest.mark.usefixtures("connect")
@pytest.mark.parametrize(
    ("payloads", "message"),
    [
        ([{"value": 1}, 2], "Payload number 1 "),
        ([{"task_id": "x"}], "'task_id'"),
        ({"value": 1}, "It must be a list"),
        ("[1,", "not JSON"),
        (7, "payloads is a int"),
    ],
)
def test_batch_payloads_that_are_not_valid_are_refused_before_any_job(
    payloads: Any, message: str
) -> None:
    run = batch_of(payloads).execute()

    assert isinstance(run.error, InvalidPayload)
    assert message in str(run.error)
    assert not run.store


@pytest.mark.usefixtures("connect")
@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"text": "\\ud800"}', "Payload number 0 "),
        (b'{"text": ', "Line 1 "),
        (b"[]", "Payload number 0 "),
    ],
)
def test_batch_line_of_an_object_that_is_not_valid_is_refused(
    line: bytes, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(line)

    run = batch_of(f"file://{path}").execute()

    assert isinstance(run.error, InvalidPayload)
    assert message in str(run.error)


@pytest.mark.usefixtures("connect")
def test_batch_payloads_come_from_an_object_with_one_a_line() -> None:
    lines = "\n".join(json.dumps(payload) for payload in numbers(5))
    s3_client("aws_default").put_object(
        Bucket="results", Key="in/five.jsonl", Body=f"{lines}\n\n".encode()
    )

    run = run_to_end(batch_of("s3://results/in/five.jsonl"))

    assert run.value == [0, 1, 2, 3, 4]


@pytest.mark.usefixtures("connect")
@pytest.mark.parametrize(
    "payloads", [json.dumps(numbers(3)), tuple(numbers(3)), map(dict, numbers(3))]
)
def test_batch_payloads_come_from_any_iterable(payloads: Any) -> None:
    assert run_to_end(batch_of(payloads)).value == [0, 1, 2]


@pytest.mark.usefixtures("connect")
def test_batch_decorator_function_makes_the_payloads() -> None:
    def double(count: int, ti: Any = None) -> Iterator[dict[str, Any]]:
        assert ti is not None
        for number in range(count):
            yield {"value": 2 * number}

    arguments = {"runqy_queue": "helper", "sink": "webhook", "max_in_flight": 2}
    with DAG("d", schedule=None):
        decorate = getattr(task, "runqy_batch")  # noqa: B009 - as Airflow finds it, by its name
        output = decorate(**arguments, defer_after=timedelta(0))(double)(5)

    assert run_to_end(Run(output.operator)).value == [0, 2, 4, 6, 8]


def test_batch_decorator_takes_no_payloads() -> None:
    with pytest.raises(TypeError, match="takes no payloads"):
        runqy_batch_task(runqy_queue="helper", payloads=[])


def test_batch_payload_has_the_size_by_which_chunks_are_made() -> None:
    given = [{"text": "x" * length} for length in (10, 1000)]
    read = Payloads.read(given, "helper", cast("Settings", None), may_be_uri=False)

    with read as payloads:
        sizes = [each.size for each in payloads.numbered(range(2))]
    large = [NumberedPayload(n, {}, CHUNK_BYTES // 2) for n in range(5)]

    assert sizes[1] - sizes[0] == 990
    assert [len(chunk) for chunk in _chunks(large)] == [2, 2, 1]
