# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Tests of the sandbox as a whole: its processes, ports, connections and cleanup."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from redis import Redis

from runqy_sandbox.errors import SandboxError
from runqy_sandbox.sandbox import Sandbox
from tests.sandbox.client import Client, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterable

PROCESSES = ("redis", "s3", "server", "worker")

FAILED_LOAD = """
from runqy_python import load, run, task

@load
def load_model():
    1 / 0

@task
def handle(payload, context):
    return payload

run()
"""


class PathLike(os.PathLike[str]):
    """A path that is neither a text nor a ``pathlib.Path``."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __fspath__(self) -> str:
        return str(self._path)


def _is_alive(pid: int) -> bool:
    """Return whether a process runs and is not a zombie."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    with contextlib.suppress(OSError):
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    return not stat.parent.parent.exists()


def _wait_until_gone(pids: Iterable[int]) -> None:
    wait_until(lambda: not any(map(_is_alive, pids)), f"the end of {pids}")


def test_sandbox_left_stops_processes_and_keeps_given_directory(
    queues: dict[str, Any], tmp_path: Path
) -> None:
    with Sandbox(queues, directory=tmp_path / "sandbox") as sandbox:
        processes = [getattr(sandbox, name) for name in PROCESSES]
        assert all(process.is_running for process in processes)
        pids = [process.pid for process in processes]
        keys = {sandbox.admin_key, sandbox.client_key, sandbox.worker_key}
    assert not any(process.is_running for process in processes)
    assert not any(map(_is_alive, pids))
    logs = {
        path.stem: path.read_text() for path in (tmp_path / "sandbox").glob("*.log")
    }
    assert logs.keys() == set(PROCESSES)
    assert len(keys) == 3
    assert not any(key in text for key in keys for text in logs.values())


def test_sandbox_left_after_worker_was_killed_ends_task_code(
    queues: dict[str, Any], tmp_path: Path
) -> None:
    with Sandbox(queues, buckets=()) as sandbox:
        client = Client(sandbox)
        job = client.add("stored.high", kind="gate", gate=str(tmp_path / "gate"))
        client.wait_for(job, "active")
        client.close()
        children = subprocess.run(
            ["pgrep", "-P", str(sandbox.worker.pid)],  # noqa: S607 - a tool of tests
            capture_output=True,
            check=True,
        )
        pids = [int(pid) for pid in children.stdout.split()]
        sandbox.worker.kill()
    assert pids
    _wait_until_gone(pids)


def test_sandbox_parent_killed_ends_processes_and_removes_directory() -> None:
    program = textwrap.dedent("""
        import sys, time
        from runqy_sandbox.sandbox import Sandbox
        with Sandbox({"queues": {}}, buckets=()) as sandbox:
            names = ("redis", "s3", "server", "worker")
            print(*(getattr(sandbox, name).pid for name in names), flush=True)
            print(sandbox.redis.log.parent, flush=True)
            time.sleep(60)
    """)
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        directory = Path(parent.stdout.readline().strip())
        assert len(pids) == len(PROCESSES)
        assert all(map(_is_alive, pids))
        assert directory.is_dir()
        parent.kill()
    _wait_until_gone(pids)
    wait_until(lambda: not directory.exists(), f"the removal of {directory}")


def test_redis_appendonly_restarted_keeps_its_data(client: Client) -> None:
    client.sandbox.worker.stop()
    url, pid = client.sandbox.redis_url, client.sandbox.redis.pid
    job = client.add("stored.high", kind="echo")
    client.sandbox.redis.kill()
    assert not client.sandbox.redis.is_running
    client.sandbox.redis.start()
    assert client.sandbox.redis.pid != pid
    assert client.sandbox.redis_url == url
    assert client.state(job) == "pending"
    client.sandbox.worker.start()
    client.wait_for(job, "completed")


def test_server_restarted_has_the_same_port(client: Client) -> None:
    job = client.add("stored.high", kind="echo")
    client.sandbox.server.stop()
    with pytest.raises(httpx.ConnectError):
        client.http.get("/health")
    client.sandbox.server.start()
    client.sandbox.server.start()  # no effect while it runs
    client.wait_for(job, "completed")


def test_connections_with_callback_are_those_of_airflow(client: Client) -> None:
    sandbox = client.sandbox
    connections = sandbox.connections("http://here/runqy", "s3cret", "s3://results")
    assert connections == {
        "runqy_default": {
            "conn_type": "runqy",
            "host": sandbox.server_url,
            "password": sandbox.client_key,
            "extra": {
                "admin_api_key": sandbox.admin_key,
                "redis_conn_id": "redis_default",
                "runqy_redis_conn_id": "redis_default",
                "aws_conn_id": "aws_default",
                "callback_url": "http://here/runqy",
                "callback_secret": "s3cret",
                "sink": "s3://results",
            },
        },
        "redis_default": {
            "conn_type": "redis",
            "host": "127.0.0.1",
            "port": sandbox.redis_port,
        },
        "aws_default": {
            "conn_type": "aws",
            "login": "sandbox",
            "password": "sandbox",
            "extra": {"endpoint_url": sandbox.s3_url, "region_name": "us-east-1"},
        },
    }
    with Redis.from_url(sandbox.redis_url) as redis:
        assert redis.ping()


def test_connections_without_callback_have_no_callback_url(client: Client) -> None:
    connections = client.sandbox.connections()
    assert "callback_url" not in connections["runqy_default"]["extra"]


def test_sandbox_task_code_fails_to_start_raises_error_with_its_output(
    tmp_path: Path,
) -> None:
    (tmp_path / "main.py").write_text("raise SystemExit('no model here')")
    queues = {"queues": {"broken": {"task_code": str(tmp_path)}}}
    with (
        pytest.raises(SandboxError, match=r"(?s)worker exited .*no model") as caught,
        Sandbox(queues),
    ):
        pass
    assert "'python main.py'" in str(caught.value)
    assert "exited before it was ready; its output is above" in str(caught.value)


#: Task code that does not start, by the reason: within how many seconds it may.
BROKEN = {
    "no model here": ("raise SystemExit('no model here')", 60),
    "was not ready within 1 s": ("import time; time.sleep(60)", 1),
    "division by zero": (FAILED_LOAD, 60),
}


def test_sandbox_code_of_some_queues_does_not_start_others_run(
    queues: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mixed = dict(queues["queues"])
    for number, (code, seconds) in enumerate(BROKEN.values()):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "main.py").write_text(code)
        deployment = {"task_code": str(folder), "startup_timeout_secs": seconds}
        mixed[f"broken{number}"] = {"deployment": deployment}

    with Sandbox({"queues": mixed}, buckets=(), processes=2) as sandbox:
        client = Client(sandbox)
        client.wait_for(client.add("stored.high", kind="echo"), "completed")
        left = client.add("broken0", kind="echo")
        [worker] = client.call("GET", "/workers").json()["workers"]
        known = client.call("GET", "/workers/queues").json()["queues"]
        assert client.state(left) == "pending"
        client.close()

    assert "stored.high:" in worker["queues"]
    assert "broken" not in worker["queues"]
    assert any("broken" in str(queue) for queue in known)
    records = [one for one in caplog.records if one.name == "runqy.sandbox"]
    assert {record.levelname for record in records} == {"ERROR"}
    messages = "".join(record.getMessage() for record in records)
    for number, reason in enumerate(BROKEN):
        assert f"broken{number}" in messages
        assert reason in messages


def test_sandbox_directory_and_queues_may_be_any_path(tmp_path: Path) -> None:
    (tmp_path / "queues.yaml").write_text("queues: {idle: {}}")

    with Sandbox(
        PathLike(tmp_path / "queues.yaml"), buckets=(), directory=tmp_path / "data"
    ) as sandbox:
        assert sandbox.redis.log.parent == tmp_path / "data"


def test_sandbox_invalid_bucket_name_raises_error() -> None:
    message = "cannot create the bucket 'x': S3 responded with 400"
    with (
        pytest.raises(SandboxError, match=message),
        Sandbox({"queues": {}}, buckets=["x"]),
    ):
        pass


@pytest.mark.parametrize(
    "options",
    [{"concurrency": 0}, {"processes": 0}, {"retry_unit": 0}, {"lease_seconds": -1}],
)
def test_sandbox_invalid_option_raises_error(options: dict[str, Any]) -> None:
    with pytest.raises(SandboxError, match="at least 1"):
        Sandbox({"queues": {}}, **options)
