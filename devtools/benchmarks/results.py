# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""What was measured, in ``.bench/``: as JSON for the plots, as Markdown for people."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path

from devtools.benchmarks.table import Table

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".bench"

#: How a benchmark ended.
DONE, FAILED, ENDED = "done", "failed", "ended"


@dataclass
class Result:
    """The outcome of one benchmark.

    Attributes:
        status: DONE, FAILED, or ENDED if it was stuck.
        seconds: How long it ran.
        tables: What it measured, even if it did not finish.
    """

    status: str
    seconds: float
    tables: list[Table] = field(default_factory=list)


def read_results(*, quick: bool) -> dict[str, Result]:
    """Return the results of the last runs, by benchmark; empty if there are none."""
    path = _path(quick=quick)
    if not path.exists():
        return {}
    stored = json.loads(path.read_text())["benchmarks"]
    return {
        name: Result(
            each["status"],
            each["seconds"],
            [Table.from_json(table) for table in each["tables"]],
        )
        for name, each in stored.items()
    }


def write_results(results: dict[str, Result], *, quick: bool) -> Path:
    """Store the results, and return the path of the Markdown."""
    FOLDER.mkdir(exist_ok=True)
    path = _path(quick=quick)
    stored = {name: asdict(result) for name, result in results.items()}
    path.write_text(json.dumps({"machine": machine(), "benchmarks": stored}, indent=1))
    page = path.with_suffix(".md")
    page.write_text(to_markdown(results))
    return page


def to_markdown(results: dict[str, Result]) -> str:
    """Return all tables as one page."""
    parts = [f"# Benchmarks\n\n{machine()}\n"]
    for name, result in results.items():
        parts.append(f"## {name}: {result.status} after {result.seconds:.0f} s\n")
        parts += [table.to_markdown() for table in result.tables]
    return "\n".join(parts)


def machine() -> str:
    """Return what the figures depend on: processors, Python, Airflow."""
    return (
        f"{os.cpu_count()} cores, Python {platform.python_version()}, "
        f"Airflow {version('apache-airflow')}"
    )


def _path(*, quick: bool) -> Path:
    return FOLDER / ("quick.json" if quick else "full.json")
