"""What runs the benchmarks: limits, stored tables, and tables as text."""

from __future__ import annotations

import importlib
import inspect
import sys
from typing import TYPE_CHECKING

import pytest

from devtools.benchmarks import __main__ as program
from devtools.benchmarks import results
from devtools.benchmarks.registry import BENCHMARKS, ON_DEMAND, names_of
from devtools.benchmarks.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import ModuleType


@pytest.fixture
def stored_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Store results in a folder of the test's own."""
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    return tmp_path


def _table() -> Table:
    table = Table("t", "A title", ["way", "waits", "ms"], note="A note.")
    table.add("ours", 10_000, 1.234)
    table.add("peer", None, 1234.5)
    return table


def test_table_as_markdown_is_aligned() -> None:
    assert _table().to_markdown().splitlines() == [
        "### A title",
        "",
        "| way  |  waits |    ms |",
        "|------|-------:|------:|",
        "| ours | 10,000 |  1.23 |",
        "| peer |        | 1,234 |",
        "",
        "A note.",
    ]


def test_table_row_with_too_few_cells_is_refused() -> None:
    with pytest.raises(ValueError, match="has columns"):
        _table().add("ours")


def test_results_are_read_as_they_were_written(stored_in: Path) -> None:
    result = results.Result(results.ENDED, 2.5, [_table()])
    page = results.write_results({"waiting": result}, quick=True)

    assert results.read_results(quick=True) == {"waiting": result}
    assert results.read_results(quick=False) == {}
    assert page.parent == stored_in
    assert "## waiting: ended after 2 s" in page.read_text()


def test_quick_run_leaves_out_what_takes_long() -> None:
    assert names_of(None, quick=False) == list(BENCHMARKS)
    assert set(names_of(None, quick=True)) < set(BENCHMARKS)
    assert names_of("settle_seconds", quick=True) == ["settle_seconds"]


@pytest.mark.parametrize("name", [*BENCHMARKS, *ON_DEMAND])
def test_benchmark_has_the_same_interface_as_the_others(name: str) -> None:
    module: ModuleType = importlib.import_module(f"devtools.benchmarks.{name}")
    assert list(inspect.signature(module.run).parameters) == ["quick"]
    assert inspect.isgeneratorfunction(module.run)


def test_benchmark_that_takes_too_long_is_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:

    def command(_name: str, _path: Path, *, quick: bool) -> list[str]:
        assert quick
        return [sys.executable, "-c", "import time; time.sleep(600)"]

    monkeypatch.setattr(program, "child_command", command)
    result = program.run_one("waiting", 0.5, quick=True)

    assert (result.status, result.tables) == (results.ENDED, [])


def test_child_stores_each_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*, quick: bool) -> Iterator[Table]:
        assert quick
        yield _table()

    module = importlib.import_module("devtools.benchmarks.waiting")
    monkeypatch.setattr(module, "run", run)
    path = tmp_path / "tables"
    assert program.main(["waiting", "--quick", "--child", str(path)]) == 0
    assert path.read_text().count("\n") == 1
