# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""An environment with one version of Airflow, the provider, and what its tests need.

Everything that Airflow itself needs has the version that was the newest on the day
after its release, as in Airflow's own constraints files; what only the tests need is
new.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from devtools.airflow_versions.versions import ROOT

if TYPE_CHECKING:
    from devtools.airflow_versions.versions import AirflowVersion

UV = ROOT / ".tools" / "bin" / "uv"

#: What the provider needs of Airflow, at the versions of that day.
PROVIDERS = (
    "amazon",
    "common-compat",
    "common-sql",
    "openlineage",
    "postgres",
    "redis",
    "sqlite",
)


class NoPythonError(Exception):
    """No Python here runs this version of Airflow."""


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
    """Return the version of a Python, such as ``3.12``; empty where it does not run."""
    text = "import sys; print('%d.%d' % sys.version_info[:2])"
    done = subprocess.run(
        [program, "-c", text], capture_output=True, text=True, check=False
    )
    return done.stdout.strip()


def make_environment(version: AirflowVersion, python: str) -> Path:
    """Install an Airflow, the provider and what its tests need; return its Python."""
    folder = version.folder / f"python{python_version(python)}"
    program, stamp = folder / "venv" / "bin" / "python", folder / "installed"
    if stamp.exists() and stamp.stat().st_mtime >= _changed_at():
        return program
    folder.mkdir(parents=True, exist_ok=True)
    constraints = folder / "constraints.txt"
    wanted = [f"apache-airflow=={version.name}"]
    wanted += [f"apache-airflow-providers-{name}" for name in PROVIDERS]
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


def _changed_at() -> float:
    """Return when what is installed was last declared anew."""
    declared = [ROOT / "pyproject.toml", *ROOT.glob("runqy_*/pyproject.toml")]
    return max(path.stat().st_mtime for path in declared)


def _uv(*arguments: str, stdin: str = "") -> None:
    subprocess.run(
        [str(UV), *arguments],
        check=True,
        cwd=ROOT,
        input=stdin,
        text=True,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "UV_CONCURRENT_BUILDS": "2"},
    )
