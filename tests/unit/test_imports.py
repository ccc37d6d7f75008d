"""Every module can be imported, on every version of Airflow that is supported."""

from __future__ import annotations

import importlib
import pkgutil
import warnings

import pytest

import runqy_provider

#: A module that runs when it is imported.
PROGRAMS = ("__main__",)

MODULES = [
    module.name
    for module in pkgutil.walk_packages(runqy_provider.__path__, "runqy_provider.")
    if module.name.rpartition(".")[2] not in PROGRAMS
]


@pytest.mark.parametrize("name", MODULES)
def test_module_can_be_imported(name: str) -> None:
    with warnings.catch_warnings():
        # Some modules say that they are deprecated, as do some of an older Airflow's.
        warnings.simplefilter("ignore")
        importlib.import_module(name)


def test_modules_are_all_found() -> None:
    assert len(MODULES) > 120
