# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""``make bench``: the benchmarks, each in a process of its own, until it is stuck.

``python -m devtools.benchmarks [NAME] [--quick]`` prints the tables, writes them to
``.bench/``, and draws the plots: into ``docs/images/`` after a full run of what they
show, into ``.bench/`` after a quick one.
"""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from devtools.benchmarks.plots import draw
from devtools.benchmarks.registry import (
    BENCHMARKS,
    ON_DEMAND,
    STUCK_AFTER,
    names_of,
)
from devtools.benchmarks.results import (
    DONE,
    ENDED,
    FAILED,
    Result,
    read_results,
    write_results,
)
from devtools.benchmarks.table import Table
from runqy_sandbox.process.watchdog import run_with_watchdog


def main(arguments: list[str] | None = None) -> int:
    """Run what the command line says; return 1 if a benchmark did not finish."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "name", nargs="?", choices=(*BENCHMARKS, *ON_DEMAND), help="only this one"
    )
    parser.add_argument("--quick", action="store_true", help="less of everything")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child:
        _run_here(options.name, options.child, quick=options.quick)
        return 0
    names = names_of(options.name, quick=options.quick)
    results = read_results(quick=options.quick) if options.name else {}
    for name in names:
        print(f"\n## {name}\n", flush=True)
        result = run_one(name, quick=options.quick)
        for table in result.tables:
            print(table.to_markdown(), flush=True)
        print(f"{name}: {result.status} after {result.seconds:.0f} s", flush=True)
        results[name] = result
        # After each one, so that what was measured is not lost.
        page = write_results(results, quick=options.quick)
    drawn = draw(results, quick=options.quick)
    print(f"\nWritten: {page}", *drawn, sep="\n")
    return int(any(results[name].status != DONE for name in names))


def run_one(name: str, *, quick: bool) -> Result:
    """Run a benchmark in a process of its own; end it if it is stuck."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tables"
        path.touch()
        with run_with_watchdog(child_command(name, path, quick=quick)) as process:
            status = _wait(process, path)
        # A table comes again whenever it has grown; the last line may be half written.
        lines = path.read_text().split("\n")[:-1]
    tables = [Table.from_json(json.loads(line)) for line in lines]
    newest = {table.name: table for table in tables}
    return Result(status, time.monotonic() - began, [*newest.values()])


def _wait(process: subprocess.Popen[bytes], tables: Path) -> str:
    """Wait for a benchmark, as long as its tables grow; return how it ended."""
    while True:
        size = tables.stat().st_size
        try:
            return FAILED if process.wait(STUCK_AFTER) else DONE
        except subprocess.TimeoutExpired:
            if tables.stat().st_size == size:
                return ENDED


def child_command(name: str, path: Path, *, quick: bool) -> list[str]:
    """Return the command line that runs a benchmark and writes tables to a file."""
    command = [sys.executable, "-m", "devtools.benchmarks", name, "--child", str(path)]
    return [*command, "--quick"] if quick else command


def _run_here(name: str, path: Path, *, quick: bool) -> None:
    module = importlib.import_module(f"devtools.benchmarks.{name}")
    with path.open("a") as file:
        for table in module.run(quick=quick):
            print(json.dumps(vars(table)), file=file, flush=True)


if __name__ == "__main__":
    sys.exit(main())
