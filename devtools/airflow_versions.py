# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The versions of Airflow that are tested, and ``make test-airflow``, which tests them.

``VERSIONS`` is the only list: CI asks for it with ``--matrix``, and the tables of the
docs are generated from it. Each version gets an environment of its own. Everything that
Airflow itself needs has the version that was the newest on the day after its release,
as in Airflow's own constraints files; what only the tests need is new. This module
needs only Python, as CI runs it before anything is installed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class AirflowVersion:
    """A version of Airflow that is tested.

    Attributes:
        name: The version.
        day: The day after its release.
        pythons: The versions of Python that it is tested with, the oldest first.
        may_fail: True for a pre-release: CI shows its failures, and passes.
    """

    name: str
    day: str
    pythons: tuple[str, ...] = ("3.10", "3.11", "3.12", "3.13")
    may_fail: bool = False


#: The oldest and the newest patch of every minor, those around a change that matters to
#: us (3.2.2 made the triggerer's pipe safe), and the newest pre-release.
VERSIONS = (
    AirflowVersion("3.0.6", "2025-08-30", ("3.10", "3.11", "3.12")),
    AirflowVersion("3.1.0", "2025-09-26"),
    AirflowVersion("3.1.8", "2026-03-12"),
    AirflowVersion("3.2.0", "2026-04-08"),
    AirflowVersion("3.2.1", "2026-04-23"),
    AirflowVersion("3.2.2", "2026-05-30"),
    AirflowVersion("3.3.0", "2026-07-07"),
    AirflowVersion("3.3.2", "2026-09-18"),
    AirflowVersion("3.4.0b2", "2026-10-21", ("3.11",), may_fail=True),
)

BY_NAME = {version.name: version for version in VERSIONS} | {
    "oldest": VERSIONS[0],
    "newest": VERSIONS[-1],
}

#: What the provider needs of Airflow, at the versions of that day. The two names with a
#: bound are parts of Airflow: a pre-release is installed only if its name is asked for
#: with one.
AIRFLOW_PARTS = (
    "core>=3.0.0b1",
    "task-sdk>=1.0.0b1",
    "providers-amazon",
    "providers-common-compat",
    "providers-common-sql",
    "providers-openlineage",
    "providers-postgres",
    "providers-redis",
    "providers-sqlite",
)

#: What depends on the version of Airflow.
SUITES = (
    "tests/project/test_imports.py",
    "tests/project/test_new_process.py",
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

#: What tells most in two minutes.
SHORT = (
    "tests/project/test_imports.py",
    "tests/unit/test_provider.py",
    "tests/contracts/test_attempt_stores.py",
    "tests/integration/airflow/test_end_in_triggerer.py",
    *(
        f"{END_TO_END}::test_{name}"
        for name in (
            "webhook_and_s3_tasks_return_results",
            "task_cleared_has_a_new_job_and_its_pending_one_is_deleted",
            "connection_form_has_all_fields",
            "loop_each_iteration_has_jobs_and_results_of_its_own",
        )
    ),
)


class NoPythonError(Exception):
    """No Python here runs this version of Airflow."""


def main() -> int:
    """Run the tests; return 0 if all passed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("versions", nargs="*", metavar="VERSION", help="default: all")
    parser.add_argument("--python", help="the Python to use, if not the oldest here")
    parser.add_argument("--only", nargs="+", help="these tests, in place of all")
    parser.add_argument(
        "--short",
        action="store_true",
        help="two minutes; what fails on a pre-release is told, and counts as passed",
    )
    parser.add_argument("--jobs", default="3", help="processes for the tests")
    parser.add_argument("--matrix", action="store_true", help="print CI's matrix")
    options = parser.parse_args()
    if options.matrix:
        print(json.dumps(matrix()))
        return 0
    unknown = set(options.versions) - set(BY_NAME)
    if unknown:
        parser.error(f"{', '.join(unknown)} is not one of {', '.join(BY_NAME)}")
    rows, failed = [], 0
    for version in [BY_NAME[name] for name in options.versions] or VERSIONS:
        try:
            python = options.python or find_python(version)
        except NoPythonError as error:
            print(error, file=sys.stderr)
            return 2
        print(f"Airflow {version.name}, {python}: installing ...", flush=True)
        began = time.monotonic()
        suites = SHORT if options.short else (*SUITES, END_TO_END)
        try:
            program = make_environment(version, python)
            status = run_tests(program, options.only or suites, options.jobs)
        except subprocess.CalledProcessError as error:
            print(error, file=sys.stderr)
            status = error.returncode
        is_told_only = options.short and version.may_fail
        failed += status != 0 and not is_told_only
        ended = f"FAILED with status {status}" if status else "passed"
        note = ", a pre-release, which may fail" if is_told_only else ""
        seconds = time.monotonic() - began
        rows.append(
            f"Airflow {version.name}{note}, {python}: {ended} ({seconds:.0f} s)"
        )
    print(*rows, sep="\n")
    return min(failed, 1)


def matrix() -> list[dict[str, str | bool]]:
    """Return a cell of CI's matrix for each version of Airflow and Python."""
    return [
        {"airflow": version.name, "python": python, "may_fail": version.may_fail}
        for version in VERSIONS
        for python in version.pythons
    ]


def run_tests(program: Path, tests: tuple[str, ...] | list[str], jobs: str) -> int:
    """Run tests with a Python, and return pytest's exit status."""
    command = [
        *(str(program), "-m", "pytest", "-q", "-n", jobs, "--dist", "loadfile"),
        *("--no-loadscope-reorder", "-p", "no:cacheprovider"),
        # The warnings of an older Airflow about itself are not ours.
        *("-o", "filterwarnings=default", "--disable-warnings", *tests),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


def find_python(version: AirflowVersion) -> str:
    """Return the oldest Python on this machine that runs a version of Airflow.

    Raises:
        NoPythonError: There is none.
    """
    folders = [Path(folder) for folder in os.get_exec_path()]
    for minor in version.pythons:
        for program in [Path(sys.executable), *(f / f"python{minor}" for f in folders)]:
            if os.access(program, os.X_OK) and python_version(str(program)) == minor:
                return str(program)
    raise NoPythonError(
        f"Airflow {version.name} needs Python {' or '.join(version.pythons)}, and "
        "none is on the PATH. Name one: make test-airflow AIRFLOW_PYTHON=python3.12."
    )


def python_version(program: str) -> str:
    """Return the version of a Python, such as ``3.12``; empty if it does not run."""
    text = "import sys; print('%d.%d' % sys.version_info[:2])"
    done = subprocess.run(
        [program, "-c", text], capture_output=True, text=True, check=False
    )
    return done.stdout.strip()


def make_environment(version: AirflowVersion, python: str) -> Path:
    """Install an Airflow, the provider and what its tests need; return its Python."""
    folder = ROOT / ".airflow" / version.name / f"python{python_version(python)}"
    program, stamp = folder / "venv" / "bin" / "python", folder / "installed"
    declared = [ROOT / "pyproject.toml", *ROOT.glob("runqy_*/pyproject.toml")]
    changed_at = max(path.stat().st_mtime for path in [*declared, Path(__file__)])
    if stamp.exists() and stamp.stat().st_mtime >= changed_at:
        return program
    folder.mkdir(parents=True, exist_ok=True)
    constraints = folder / "constraints.txt"
    wanted = [f"apache-airflow=={version.name}"]
    wanted += [f"apache-airflow-{part}" for part in AIRFLOW_PARTS]
    _uv(
        *("pip", "compile", "--quiet", "--python", python, "-"),
        *("--exclude-newer", version.day, "--output-file", str(constraints)),
        stdin="\n".join(wanted),
    )
    venv = folder / "venv"
    _uv("venv", "--quiet", "--clear", str(venv), "--python", python)
    _uv(
        *("pip", "install", "--quiet", "--python", str(venv), "-c", str(constraints)),
        *("--group", "test", "-e", "./runqy_delivery", "-e", "./runqy_sandbox"),
        *("-e", "."),
    )
    stamp.touch()
    return program


def _uv(*arguments: str, stdin: str = "") -> None:
    subprocess.run(
        [str(ROOT / ".tools" / "bin" / "uv"), *arguments],
        check=True,
        cwd=ROOT,
        input=stdin,
        text=True,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "UV_CONCURRENT_BUILDS": "2"},
    )


if __name__ == "__main__":
    sys.exit(main())
