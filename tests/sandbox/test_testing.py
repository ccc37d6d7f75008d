# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Tests of the pytest plugin, in test runs of their own."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

USES_FIXTURES = """
import json, os

def test_connections(runqy_sandbox, runqy_connections):
    runqy = json.loads(os.environ["AIRFLOW_CONN_RUNQY_DEFAULT"])
    assert runqy == runqy_connections["runqy_default"]
    assert runqy["host"] == runqy_sandbox.server_url
"""

OVERRIDES_QUEUES = """
import httpx, pytest

@pytest.fixture(scope="session")
def runqy_queues():
    deployment = {"redis_storage": True}
    return {"queues": {"double": {"task_code": ".", "deployment": deployment}}}

def test_job(runqy_sandbox):
    job = httpx.post(
        f"{runqy_sandbox.server_url}/queue/add",
        json={"queue": "double", "data": {"value": 2}},
        headers={"X-API-Key": runqy_sandbox.client_key},
    ).json()["info"]
    url = f"{runqy_sandbox.server_url}/queue/{job['id']}?wait=true"
    assert httpx.get(url, timeout=40).json()["Info"]["Result"] == "4"
"""

TASK_CODE = """
from runqy_python import run, task

@task
def double(payload):
    return payload["value"] * 2

run()
"""


def _run_pytest(directory: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Run pytest in a directory on a file with this code, with warnings as errors."""
    (directory / "test_user.py").write_text(code)
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-W", "error", "-p", "no:asyncio"],
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
    )


def test_plugin_fixtures_requested_give_sandbox_and_connections(
    tmp_path: Path,
) -> None:
    run = _run_pytest(tmp_path, USES_FIXTURES)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "1 passed" in run.stdout


def test_plugin_queues_overridden_are_served(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(TASK_CODE)
    run = _run_pytest(tmp_path, OVERRIDES_QUEUES)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "1 passed" in run.stdout


def test_plugin_import_does_not_import_the_sandbox() -> None:
    code = (
        "import sys, runqy_sandbox.testing\n"
        "print(*(name for name in sys.modules if name.startswith('runqy')), sep=' ')\n"
        "print(*({'google.protobuf', 'moto', 'redis', 'yaml'} & sys.modules.keys()))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    own, heavy = run.stdout.splitlines()
    assert own.split() == ["runqy_sandbox", "runqy_sandbox.testing"]
    assert heavy == ""
