"""Where the payloads of a batch come from, and which are refused."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk import DAG, task

from tests.integration.batch.conftest import batch_of, numbers, run_to_end
from tests.support.caches import s3_client
from tests.support.harness import Run

if TYPE_CHECKING:
    from collections.abc import Iterator


pytestmark = pytest.mark.usefixtures("no_settling", "short_intervals")


@pytest.mark.usefixtures("connect")
def test_batch_payloads_come_from_an_object_with_one_a_line() -> None:
    lines = "\n".join(json.dumps(payload) for payload in numbers(5))
    s3_client("aws_default").put_object(
        Bucket="results", Key="in/five.jsonl", Body=f"{lines}\n\n".encode()
    )

    run = run_to_end(batch_of("s3://results/in/five.jsonl"))

    assert run.value == [0, 1, 2, 3, 4]


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
