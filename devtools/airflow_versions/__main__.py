# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""``make test-airflow``: the tests on a version of Airflow, or on all of them.

Prints one line of a table for each version and Python.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from typing import TYPE_CHECKING

from devtools.airflow_versions.environment import (
    NoPythonError,
    find_python,
    make_environment,
    python_version,
)
from devtools.airflow_versions.versions import BY_NAME, ROOT, VERSIONS

if TYPE_CHECKING:
    from pathlib import Path

    from devtools.airflow_versions.versions import AirflowVersion

#: What depends on the version of Airflow.
SUITES = (
    "tests/unit/test_imports.py",
    "tests/unit/test_provider.py",
    "tests/contracts/test_attempt_stores.py",
    "tests/integration/airflow/test_channel_trigger.py",
    "tests/integration/airflow/test_end_in_triggerer.py",
    "tests/integration/airflow/test_job_watch.py",
    "tests/integration/airflow/test_operator.py",
    "tests/integration/airflow/test_plugin.py",
    "tests/integration/airflow/test_reattach.py",
    "tests/integration/airflow/test_sensor.py",
    "tests/integration/airflow/test_task_decorator.py",
    "tests/integration/airflow/test_task_end.py",
    "tests/integration/airflow/test_telemetry.py",
    "tests/integration/airflow/test_trigger.py",
    "tests/integration/airflow/test_triggerer.py",
    "tests/integration/airflow/test_xcom_value.py",
    "tests/integration/batch",
    "tests/integration/page",
)

#: Real processes of Airflow.
END_TO_END = "tests/e2e/test_airflow_version.py"

HEAD = (
    "| Airflow | Python | tests passed | skipped | failed | end to end | seconds |\n"
    "|---|---|---|---|---|---|---|"
)


@dataclass
class Row:
    """What came of the tests on one version.

    Attributes:
        version: The version of Airflow.
        python: The version of Python.
        passed: How many tests passed.
        skipped: How many do not apply to this version.
        failed: How many failed.
        end_to_end: Which part of them ran through real processes: passed of all.
        seconds: How long it took, without the installation.
    """

    version: str
    python: str
    passed: int = 0
    skipped: int = 0
    failed: int = 0
    end_to_end: str = "not run"
    seconds: float = 0.0

    def __str__(self) -> str:
        return (
            f"| {self.version} | {self.python} | {self.passed} | {self.skipped} | "
            f"{self.failed} | {self.end_to_end} | {self.seconds:.0f} |"
        )


def main() -> int:
    """Run the tests; return 0 where all passed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("versions", nargs="*", metavar="VERSION", help="default: all")
    parser.add_argument("--python", help="the Python to use, if not the oldest here")
    parser.add_argument("--no-e2e", action="store_true", help="no real processes")
    parser.add_argument("--jobs", default="3", help="processes for the tests")
    arguments = parser.parse_args()
    unknown = set(arguments.versions) - set(BY_NAME)
    if unknown:
        parser.error(f"{', '.join(unknown)} is not one of {', '.join(BY_NAME)}")
    rows = []
    for version in [BY_NAME[name] for name in arguments.versions] or VERSIONS:
        try:
            python = arguments.python or find_python(version)
        except NoPythonError as error:
            print(error, file=sys.stderr)
            return 2
        rows.append(_test(version, python, arguments.jobs, e2e=not arguments.no_e2e))
    print(HEAD, *rows, sep="\n")
    return 1 if any(row.failed or not row.passed for row in rows) else 0


def _test(version: AirflowVersion, python: str, jobs: str, *, e2e: bool) -> Row:
    row = Row(version.name, python_version(python))
    print(f"Airflow {row.version}, Python {row.python}: installing ...", flush=True)
    program = make_environment(version, python)
    report = version.folder / "report.xml"
    report.unlink(missing_ok=True)
    began = time.monotonic()
    subprocess.run(
        [
            *(str(program), "-m", "pytest", "-q", "-n", jobs, "--dist", "loadfile"),
            *("--no-loadscope-reorder", "-p", "no:cacheprovider"),
            # The warnings of an older Airflow about itself are not ours.
            *("-o", "filterwarnings=default", "--disable-warnings"),
            *("--junitxml", str(report), *SUITES, *((END_TO_END,) if e2e else ())),
        ],
        cwd=ROOT,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    row.seconds = time.monotonic() - began
    if report.exists():
        _count(report, row)
    return row


def _count(report: Path, row: Row) -> None:
    name = END_TO_END.removesuffix(".py").replace("/", ".")
    processes: list[bool] = []
    for case in ET.parse(report).iter("testcase"):  # noqa: S314 - pytest's own file
        is_skipped = case.find("skipped") is not None
        is_failed = case.find("failure") is not None or case.find("error") is not None
        row.skipped += is_skipped
        row.failed += is_failed
        row.passed += not (is_skipped or is_failed)
        if case.get("classname") == name and not is_skipped:
            processes.append(not is_failed)
    if processes:
        row.end_to_end = f"{sum(processes)} of {len(processes)}"


if __name__ == "__main__":
    sys.exit(main())
