"""The sizing of a deployment: how its parts follow from the load."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import pytest

from devtools.benchmarks import measured, model
from devtools.benchmarks.registry import BENCHMARKS
from devtools.benchmarks.sizing import DAY, Load, size_of
from tests.support.doc_blocks import blocks_of, commands_of

OPERATIONS = "docs/operations.md"


def test_sizing_rates_and_waits_follow_from_the_load() -> None:
    size = size_of(Load(jobs_per_day=DAY, peak_factor=2, job_seconds=30))

    assert size.jobs_per_second == 2
    assert size.waits == 60
    assert size.slots == math.ceil(2 * measured.SLOT_TIME.value)


def test_sizing_each_airflow_has_a_triggerer_and_a_receiver_to_spare() -> None:
    load = Load(jobs_per_day=1000)

    assert (size_of(load).triggerers, size_of(load).receivers) == (2, 2)
    divided = size_of(replace(load, airflows=3))
    assert (divided.triggerers, divided.receivers) == (6, 6)


@pytest.mark.parametrize(
    ("field", "value"), [("capacity", 500), ("jobs_per_day", 20_000_000)]
)
def test_sizing_more_triggerers_where_one_is_too_small(
    field: str, value: float
) -> None:
    assert size_of(replace(Load(), **{field: value})).triggerers > 4


def test_sizing_requests_and_their_price_follow_from_the_objects() -> None:
    load = Load(webhook_share=0, object_share=1, jobs_per_day=1000, folders=0)
    size = size_of(load)

    puts, reads = measured.OBJECT_PUTS.value, measured.OBJECT_READS.value
    assert (size.puts, size.reads, size.lists) == (1000 * puts, 1000 * reads, 0)
    expected = 30 * (puts * load.put_price + reads * load.get_price)
    assert size.dollars_per_month == pytest.approx(expected)


def test_sizing_without_objects_lists_nothing() -> None:
    size = size_of(Load(webhook_share=1, object_share=0))
    assert (size.puts, size.lists, size.dollars_per_month) == (0, 0, 0)


def test_sizing_memory_grows_with_results_and_unread_deliveries() -> None:
    least = size_of(Load()).redis_memory
    assert size_of(Load(result_kib=20)).redis_memory > 2 * least
    assert size_of(Load(unread_share=0.5)).redis_memory > 2 * least


def test_model_names_what_differs_from_its_defaults(
    capsys: pytest.CaptureFixture[str],
) -> None:
    model.main(["--job-seconds", "600", "--sources"])

    said = capsys.readouterr().out
    assert said.startswith("changed: job_seconds 600\n")
    assert all(each.where in said for each in measured.FIGURES)


def test_measured_figures_name_benchmarks_that_exist() -> None:
    assert len(measured.FIGURES) > 10
    assert {each.benchmark for each in measured.FIGURES} <= set(BENCHMARKS)


def test_docs_quote_what_the_model_prints(capsys: pytest.CaptureFixture[str]) -> None:
    block = next(
        block
        for block in blocks_of(OPERATIONS)
        if "devtools.benchmarks.model" in block.code
    )
    ((_python, _m, _module, *arguments),) = commands_of(block)
    model.main(arguments)

    quoted = re.sub(r"^\$ .*\n", "", block.code)
    assert capsys.readouterr().out == quoted
