# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Tests of the worker: retries, leases, priorities, crashes and restarts."""

from __future__ import annotations

import json
import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

from runqy_sandbox.asynq.keys import WORKERS, key, task_key, worker_key
from runqy_sandbox.worker.heartbeat import worker_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from runqy_sandbox.process.child import Child
    from tests.sandbox.client import Client

NOT_FOUND = "asynq: task not found"


@pytest.fixture
def stopped_worker(client: Client) -> Iterator[Child]:
    client.sandbox.worker.stop()
    yield client.sandbox.worker
    client.sandbox.worker.start()


@pytest.mark.parametrize(
    ("kind", "error"),
    [("fail", "permanent failure: Traceback"), ("retry", "transient (will retry)")],
)
def test_job_failing_with_storage_is_archived_after_three_retries(
    client: Client, tmp_path: Path, kind: str, error: str
) -> None:
    log = tmp_path / "log"
    job = client.add("stored.high", kind=kind, log=str(log))
    client.wait_for(job, "archived")
    assert log.read_text().split() == [kind] * 4
    task = client.task("stored.high", job)
    assert task["error_msg"].startswith(error)
    assert task["retried"] == "3"
    message = client.message("stored.high", job)
    assert (message.retried, message.timeout) == (3, 0)


def test_job_failing_without_storage_is_deleted_after_three_retries(
    client: Client, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    job = client.add("plain", kind="fail", log=str(log))
    client.wait_for(job, NOT_FOUND)
    assert log.read_text().split() == ["fail"] * 4
    assert client.redis.get(key("plain.default", "failed")) == b"1"


def test_jobs_with_higher_priority_run_first(
    client: Client, stopped_worker: Child, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    queues = ("stored.low", "plain.default", "stored.high")
    for n, queue in enumerate(queues * 3):
        client.add(queue, kind="echo", log=str(log), name=f"{queue}-{n}")
    stopped_worker.start()
    for queue in queues:
        pending = key(queue, "pending")
        active = key(queue, "active")
        while client.redis.llen(pending) or client.redis.llen(active):
            time.sleep(0.01)
    # Two jobs run at a time, so neighbours may be swapped.
    order = [line.split("-")[0] for line in log.read_text().split()]
    assert set(order[:2]) == {"stored.high"}
    assert set(order[-2:]) == {"stored.low"}
    assert len(order) == 9


def test_task_process_crashed_is_restarted(client: Client, tmp_path: Path) -> None:
    job = client.add("stored.low", kind="crash once", flag=str(tmp_path / "flag"))
    client.wait_for(job, "completed")
    task = client.task("stored.low", job)
    assert (task["result"], task["retried"]) == ('"survived"', "1")


def test_job_in_flight_when_task_process_crashes_is_retried(
    client: Client, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    first = client.add("stored.high", kind="crash once", flag=str(tmp_path / "flag"))
    second = client.add("stored.high", kind="gate", gate=str(gate))
    gate.touch()
    client.wait_for(first, "completed")
    client.wait_for(second, "completed")


@pytest.mark.parametrize("kind", ["crash", "long"])
def test_task_process_crash_or_long_line_fails_the_job(
    client: Client, kind: str
) -> None:
    job = client.push("stored.high", json.dumps({"kind": kind}).encode())
    client.wait_for(job, "archived")
    message = "handler stopped while waiting for response"
    assert client.task("stored.high", job)["error_msg"] == message


def test_task_process_line_without_json_is_ignored(client: Client) -> None:
    job = client.add("stored.high", kind="noise")
    client.wait_for(job, "completed")


def test_result_null_is_decoded_as_base64_as_in_runqy(client: Client) -> None:
    job = client.add("stored.high", kind="null")
    client.wait_for(job, "completed")
    assert client.task("stored.high", job)["result"] == "null"
    # runqy takes the four letters for base64.
    shown = client.http.get(f"/queue/{job}").json()["Info"]["Result"]
    assert shown == b"\x9e\xe9\x65".decode("utf-8", "replace")


def test_pending_id_without_readable_task_is_skipped(client: Client) -> None:
    client.redis.lpush(key("stored.high", "pending"), "no-such-task")
    broken = task_key("stored.high", "broken")
    client.redis.hset(broken, mapping={"msg": b"\xff", "state": "pending"})
    client.redis.lpush(key("stored.high", "pending"), "broken")
    job = client.add("stored.high", kind="echo")
    client.wait_for(job, "completed")
    log = client.sandbox.worker.log.read_text()
    assert "Task data not found for ID: no-such-task" in log


def test_payload_not_json_is_passed_as_null(client: Client) -> None:
    job = client.push("stored.high", b"\xff not json")
    client.wait_for(job, "archived")
    assert "'NoneType'" in client.task("stored.high", job)["error_msg"]


def test_task_code_reaches_s3_without_configuration(client: Client) -> None:
    job = client.add("stored.high", kind="s3")
    assert client.wait_for(job, "completed", "archived") == "completed"


def test_delete_active_job_returns_error(client: Client, tmp_path: Path) -> None:
    job = client.add("stored.high", kind="gate", gate=str(tmp_path / "gate"))
    client.wait_for(job, "active")
    response = client.call("DELETE", f"/api/queues/stored.high/tasks/{job}")
    assert response.status_code == 500
    assert "cannot delete task in active state" in response.json()["errors"][0]
    (tmp_path / "gate").touch()
    client.wait_for(job, "completed")


def test_lease_of_running_job_is_extended(client: Client, tmp_path: Path) -> None:
    log = tmp_path / "log"
    gate = str(tmp_path / "gate")
    job = client.add("stored.high", kind="gate", gate=gate, log=str(log))
    client.wait_for(job, "active")
    lease = key("stored.high", "lease")
    first = client.score(lease, job)
    assert first is not None
    while (client.score(lease, job) or 0) < first + 1:
        time.sleep(0.02)
    (tmp_path / "gate").touch()
    client.wait_for(job, "completed")
    assert log.read_text().split() == ["gate"]


def test_job_of_killed_worker_runs_again(client: Client, tmp_path: Path) -> None:
    log = tmp_path / "log"
    gate = str(tmp_path / "gate")
    job = client.add("stored.high", kind="gate", gate=gate, log=str(log))
    client.wait_for(job, "active")
    while not log.exists():
        time.sleep(0.01)
    client.sandbox.worker.kill()
    assert client.state(job) == "active"
    client.sandbox.worker.start()
    while log.read_text().split() != ["gate"] * 2:
        time.sleep(0.02)
    (tmp_path / "gate").touch()
    client.wait_for(job, "completed")
    assert client.task("stored.high", job)["retried"] == "1"
    assert "its lease expired" in client.sandbox.worker.log.read_text()


def test_worker_stopped_requeues_its_jobs(client: Client, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    job = client.add("stored.high", kind="gate", gate=str(gate))
    client.wait_for(job, "active")
    pid = client.sandbox.worker.pid
    client.sandbox.worker.stop()
    assert client.state(job) == "pending"
    beat = client.hash(worker_key(worker_id(pid)))
    assert beat["status"] == b"stopped"
    gate.touch()
    client.sandbox.worker.start()
    client.wait_for(job, "completed")
    assert "retried" not in client.task("stored.high", job)


def test_heartbeat_of_running_worker_is_listed(client: Client) -> None:
    name = worker_id(client.sandbox.worker.pid)
    beat = client.hash(worker_key(name))
    assert beat["status"] == b"running"
    assert beat["healthy"] == b"1"
    assert 0 < int(client.redis.ttl(worker_key(name))) <= 30
    assert (client.score(WORKERS, name) or 0) > time.time()
    workers = client.call("GET", "/workers").json()["workers"]
    [mine] = [worker for worker in workers if worker["worker_id"] == name]
    assert (mine["is_stale"], mine["status"]) == (False, "running")


def test_worker_continues_after_restart_of_redis(client: Client) -> None:
    client.sandbox.redis.kill()
    while client.call("GET", "/healthz", None).status_code != 503:
        time.sleep(0.02)
    client.sandbox.redis.start()
    job = client.add("stored.high", kind="echo")
    client.wait_for(job, "completed")


def test_task_code_gets_environment_without_keys(
    start: Callable[..., Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "mine")
    names = ["SECRET", "AWS_SESSION_TOKEN", "RUNQY_SANDBOX_SETTINGS"]
    client = start(environment={"SECRET": "s3cret"}, processes=2, concurrency=4)
    job = client.add("stored.high", kind="environment", names=names)
    client.wait_for(job, "completed")
    result = json.loads(client.task("stored.high", job)["result"])
    assert result == {"SECRET": "s3cret", **dict.fromkeys(names[1:])}


def test_two_processes_run_jobs_in_parallel(
    start: Callable[..., Client], tmp_path: Path
) -> None:
    client = start(processes=2)
    gate = str(tmp_path / "gate")
    log = tmp_path / "log"
    jobs = [
        client.add("stored.high", kind="gate", gate=gate, log=str(log))
        for _ in range(2)
    ]
    while not log.exists() or log.read_text().split() != ["gate"] * 2:
        time.sleep(0.01)
    (tmp_path / "gate").touch()
    for job in jobs:
        client.wait_for(job, "completed")
    pids = {client.task("stored.high", job)["result"] for job in jobs}
    assert len(pids) == 2
    assert str(os.getpid()) not in pids
    os.kill(client.sandbox.worker.pid, signal.SIGINT)
    while client.sandbox.worker.is_running:
        time.sleep(0.01)


def test_task_process_crash_does_not_fail_jobs_of_another(
    start: Callable[..., Client], tmp_path: Path
) -> None:
    client = start(processes=2, concurrency=2)
    jobs = [
        client.add("stored.high", kind="crash once", flag=str(tmp_path / f"flag-{n}"))
        for n in range(6)
    ]
    for job in jobs:
        client.wait_for(job, "completed")
    retried = [client.task("stored.high", job)["retried"] for job in jobs]
    assert retried == ["1"] * 6


def test_idle_worker_sends_few_commands_to_redis(client: Client) -> None:
    """Short retries and leases must not make it poll without a pause."""

    def calls() -> int:
        stats: dict[str, dict[str, int]] = client.redis.info("commandstats")
        return sum(command["calls"] for command in stats.values())

    seconds = 2.0
    before, start = calls(), time.monotonic()
    time.sleep(seconds)
    elapsed = time.monotonic() - start

    assert (calls() - before) / elapsed < 60
