"""What the distribution says of itself."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path

import tomllib
from packaging.utils import canonicalize_name

import runqy_delivery
import runqy_provider
from runqy_provider.get_provider_info import get_provider_info

ROOT = Path(__file__).parents[2]
INFO = get_provider_info()


def test_distribution_name_equals_provider_info() -> None:
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())
    [point] = [
        p
        for p in entry_points(group="apache_airflow_provider")
        if p.value.startswith("runqy_provider.")
    ]

    assert canonicalize_name(data["project"]["name"]) == INFO["package-name"]
    assert point.load()() == INFO


def test_versions_are_equal_and_in_changelog() -> None:
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())
    version = runqy_provider.__version__

    assert runqy_delivery.__version__ == version
    assert f"runqy-delivery=={version}" in data["project"]["dependencies"]
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    # Until it is released, the section of what is to come names it.
    coming = changes.partition("## [Unreleased]")[2].partition("\n## ")[0]
    assert f"## [{version}]" in changes or f"will be {version}." in coming
