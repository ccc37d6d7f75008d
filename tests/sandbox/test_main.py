# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""`python -m runqy_sandbox`, as a person runs it."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import yaml

if TYPE_CHECKING:
    from pathlib import Path

COMMAND = [sys.executable, "-m", "runqy_sandbox"]


def _stop(process: subprocess.Popen[str], number: int) -> None:
    process.send_signal(number)
    assert process.wait(20) == 0


def test_it_starts_says_where_and_stops_on_sigterm() -> None:
    with subprocess.Popen(COMMAND, stdout=subprocess.PIPE, text=True) as process:
        lines = [process.stdout.readline() for _ in range(12)]
        _stop(process, signal.SIGTERM)
        lines += process.stdout.readlines()
    text = "".join(lines)
    assert "This is a stand-in for demos and tests." in text
    assert "Press Ctrl-C to stop." in text
    exports = [line for line in lines if line.startswith("export AIRFLOW_CONN_")]
    assert len(exports) == 3
    for line in exports:
        name, _, value = shlex.split(line)[1].partition("=")
        assert json.loads(value)["conn_type"] == name.split("_")[2].lower()


def test_it_serves_a_file_and_task_code_and_speaks_json(
    queues: dict[str, Any], tmp_path: Path, task_code: Path
) -> None:
    file = tmp_path / "queues.yaml"
    file.write_text(yaml.safe_dump(queues))
    options = ["--json", "--queues", str(file), "--task-code", f"typed={task_code}"]
    with subprocess.Popen(
        [*COMMAND, *options], stdout=subprocess.PIPE, text=True
    ) as process:
        said = json.loads(process.stdout.readline())
        headers = {"X-API-Key": said["admin_key"]}
        url = said["server_url"]
        workers = httpx.get(f"{url}/workers", headers=headers).json()["workers"]
        _stop(process, signal.SIGINT)
    assert "typed.default:1" in workers[0]["queues"]
    assert said["pid"] == process.pid
    assert said["connections"]["runqy_default"]["password"] == said["client_key"]


def test_the_echo_queue_echoes() -> None:
    with subprocess.Popen(
        [*COMMAND, "--json"], stdout=subprocess.PIPE, text=True
    ) as process:
        said = json.loads(process.stdout.readline())
        url = said["server_url"]
        added = httpx.post(
            f"{url}/queue/add",
            json={"queue": "echo", "data": {"hello": "world"}},
            headers={"X-API-Key": said["client_key"]},
        )
        job = added.json()["info"]["id"]
        answer = httpx.get(f"{url}/queue/{job}?wait=true")
        _stop(process, signal.SIGTERM)
    assert answer.json()["Info"]["Result"] == '{"hello": "world"}'


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        (["--queues", "no-such-file"], 1, "cannot read the queues file"),
        (["--task-code", "q=no-such-directory"], 1, "is no directory"),
        (["--task-code", "nonsense"], 2, "expected NAME=DIR, not 'nonsense'"),
    ],
)
def test_what_is_wrong_is_said(options: list[str], status: int, words: str) -> None:
    run = subprocess.run(
        [*COMMAND, *options], capture_output=True, text=True, check=False
    )
    assert run.returncode == status
    assert words in run.stderr
    assert "Traceback" not in run.stderr


def test_without_the_extra_it_says_what_to_install(tmp_path: Path) -> None:
    # A meta path that knows no moto, in the process itself.
    blocker = tmp_path / "sitecustomize.py"
    blocker.write_text("import sys\nsys.modules['moto'] = None\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    environment.pop("COVERAGE_PROCESS_START", None)
    run = subprocess.run(
        COMMAND, env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 1
    assert "pip install --force-reinstall runqy-sandbox" in run.stderr
    assert "Traceback" not in run.stderr
