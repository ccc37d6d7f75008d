"""Every benchmark can be imported, and run as the others are."""

from __future__ import annotations

import importlib
import inspect

import pytest

from devtools.benchmarks.registry import BENCHMARKS, ON_DEMAND


@pytest.mark.parametrize("name", [*BENCHMARKS, *ON_DEMAND])
def test_benchmark_has_the_same_interface_as_the_others(name: str) -> None:
    module = importlib.import_module(f"devtools.benchmarks.{name}")

    assert list(inspect.signature(module.run).parameters) == ["quick"]
    assert inspect.isgeneratorfunction(module.run)
