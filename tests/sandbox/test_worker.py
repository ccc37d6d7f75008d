# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The worker: what becomes of jobs, whatever befalls those who run them."""

from __future__ import annotations

import json
import os
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest

from runqy_sandbox.asynq.keys import key, task_key
from runqy_sandbox.worker.heartbeat import worker_id

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

GONE = "asynq: task not found"


@pytest.fixture
def stopped_worker(client: Any) -> Iterator[Any]:
    client.sandbox.worker.stop()
    yield client.sandbox.worker
    client.sandbox.worker.start()


@pytest.mark.parametrize(
    ("kind", "error"),
    [("fail", "permanent failure: Traceback"), ("retry", "transient (will retry)")],
)
def test_a_job_that_fails_is_tried_four_times_then_archived(
    client: Any, tmp_path: Path, kind: str, error: str
) -> None:
    log = tmp_path / "log"
    job = client.add("stored.high", kind=kind, log=str(log))
    client.wait_for(job, "archived")
    assert log.read_text().split() == [kind] * 4
    task = client.task("stored.high", job)
    assert task["error_msg"].startswith(error)
    assert task["retried"] == "3"
    assert (task["msg"].retried, task["msg"].timeout) == (3, 0)


def test_without_storage_a_job_that_fails_is_deleted_at_the_end(
    client: Any, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    job = client.add("plain", kind="fail", log=str(log))
    client.wait_for(job, GONE)
    assert log.read_text().split() == ["fail"] * 4
    assert client.redis.get(key("plain.default", "failed")) == b"1"


def test_higher_priority_goes_first(
    client: Any, stopped_worker: Any, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    queues = ("stored.low", "plain.default", "stored.high")
    for n, queue in enumerate(queues * 3):
        client.add(queue, kind="echo", log=str(log), name=f"{queue}-{n}")
    stopped_worker.start()
    for queue in queues:
        pending = key(queue, "pending")
        while client.redis.llen(pending) or client.redis.llen(key(queue, "active")):
            time.sleep(0.01)
    # Two jobs at a time, so neighbours may change places.
    order = [line.split("-")[0] for line in log.read_text().split()]
    assert set(order[:2]) == {"stored.high"}
    assert set(order[-2:]) == {"stored.low"}
    assert len(order) == 9


def test_a_dead_task_process_is_started_again(client: Any, tmp_path: Path) -> None:
    job = client.add("stored.low", kind="crash once", flag=str(tmp_path / "flag"))
    client.wait_for(job, "completed")
    task = client.task("stored.low", job)
    assert (task["result"], task["retried"]) == ('"survived"', "1")


def test_jobs_in_flight_fail_with_their_task_process(
    client: Any, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    first = client.add("stored.high", kind="crash once", flag=str(tmp_path / "flag"))
    second = client.add("stored.high", kind="gate", gate=str(gate))
    gate.touch()
    client.wait_for(first, "completed")
    client.wait_for(second, "completed")


@pytest.mark.parametrize("kind", ["crash", "long"])
def test_what_breaks_the_protocol_is_a_stopped_handler(client: Any, kind: str) -> None:
    job = client.push("stored.high", json.dumps({"kind": kind}).encode())
    client.wait_for(job, "archived")
    words = "handler stopped while waiting for response"
    assert client.task("stored.high", job)["error_msg"] == words


def test_noise_on_stdout_is_skipped(client: Any) -> None:
    job = client.add("stored.high", kind="noise")
    client.wait_for(job, "completed")


def test_a_result_of_null_is_stored_and_shown_as_runqy_does(client: Any) -> None:
    job = client.add("stored.high", kind="nothing")
    client.wait_for(job, "completed")
    assert client.task("stored.high", job)["result"] == "null"
    # runqy takes the four letters for base64.
    shown = client.http.get(f"/queue/{job}").json()["Info"]["Result"]
    assert shown == b"\x9e\xe9\x65".decode("utf-8", "replace")


def test_an_id_without_a_task_is_dropped(client: Any) -> None:
    client.redis.lpush(key("stored.high", "pending"), "no-such-task")
    broken = task_key("stored.high", "broken")
    client.redis.hset(broken, mapping={"msg": b"\xff", "state": "pending"})
    client.redis.lpush(key("stored.high", "pending"), "broken")
    job = client.add("stored.high", kind="echo")
    client.wait_for(job, "completed")
    log = client.sandbox.worker.log.read_text()
    assert "Task data not found for ID: no-such-task" in log


def test_a_payload_that_is_no_json_arrives_as_null(client: Any) -> None:
    job = client.push("stored.high", b"\xff not json")
    client.wait_for(job, "archived")
    assert "'NoneType'" in client.task("stored.high", job)["error_msg"]


def test_task_code_finds_s3(client: Any) -> None:
    job = client.add("stored.high", kind="s3")
    assert client.wait_for(job, "completed", "archived") == "completed"


def test_an_active_job_cannot_be_deleted(client: Any, tmp_path: Path) -> None:
    job = client.add("stored.high", kind="gate", gate=str(tmp_path / "gate"))
    client.wait_for(job, "active")
    answer = client.call("DELETE", f"/api/queues/stored.high/tasks/{job}")
    assert answer.status_code == 500
    assert "cannot delete task in active state" in answer.json()["errors"][0]
    (tmp_path / "gate").touch()
    client.wait_for(job, "completed")


def test_a_lease_is_prolonged_while_the_job_runs(client: Any, tmp_path: Path) -> None:
    log = tmp_path / "log"
    gate = str(tmp_path / "gate")
    job = client.add("stored.high", kind="gate", gate=gate, log=str(log))
    client.wait_for(job, "active")
    lease = key("stored.high", "lease")
    first = client.redis.zscore(lease, job)
    while client.redis.zscore(lease, job) < first + 1:
        time.sleep(0.02)
    (tmp_path / "gate").touch()
    client.wait_for(job, "completed")
    assert log.read_text().split() == ["gate"]


def test_the_job_of_a_killed_worker_runs_again(client: Any, tmp_path: Path) -> None:
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
    assert "its lease ran out" in client.sandbox.worker.log.read_text()


def test_a_stopped_worker_gives_its_jobs_back(client: Any, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    job = client.add("stored.high", kind="gate", gate=str(gate))
    client.wait_for(job, "active")
    pid = client.sandbox.worker.pid
    client.sandbox.worker.stop()
    assert client.state(job) == "pending"
    beat = client.redis.hgetall(f"asynq:workers:{worker_id(pid)}")
    assert beat[b"status"] == b"stopped"
    gate.touch()
    client.sandbox.worker.start()
    client.wait_for(job, "completed")
    assert "retried" not in client.task("stored.high", job)


def test_a_heartbeat_says_who_is_there(client: Any) -> None:
    name = worker_id(client.sandbox.worker.pid)
    beat = client.redis.hgetall(f"asynq:workers:{name}")
    assert beat[b"status"] == b"running"
    assert beat[b"healthy"] == b"1"
    assert 0 < client.redis.ttl(f"asynq:workers:{name}") <= 30
    assert client.redis.zscore("asynq:workers", name) > time.time()
    workers = client.call("GET", "/workers").json()["workers"]
    [mine] = [worker for worker in workers if worker["worker_id"] == name]
    assert (mine["is_stale"], mine["status"]) == (False, "running")


def test_a_worker_outlives_its_redis(client: Any) -> None:
    client.sandbox.redis.kill()
    while client.call("GET", "/healthz", None).status_code != 503:
        time.sleep(0.02)
    client.sandbox.redis.start()
    job = client.add("stored.high", kind="echo")
    client.wait_for(job, "completed")


def test_task_code_sees_its_environment_and_no_keys(
    start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "mine")
    names = ["SECRET", "AWS_SESSION_TOKEN", "RUNQY_SANDBOX_SETTINGS"]
    client = start(environment={"SECRET": "s3cret"}, processes=2, concurrency=4)
    job = client.add("stored.high", kind="environment", names=names)
    client.wait_for(job, "completed")
    result = json.loads(client.task("stored.high", job)["result"])
    assert result == {"SECRET": "s3cret", **dict.fromkeys(names[1:])}


def test_two_processes_work_side_by_side(start: Any, tmp_path: Path) -> None:
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


def test_a_process_that_dies_takes_no_job_of_another_with_it(
    start: Any, tmp_path: Path
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


def test_an_idle_worker_asks_redis_little(client: Any) -> None:
    """However short the retries and leases of tests are: it must not spin."""

    def calls() -> int:
        stats = client.redis.info("commandstats")
        return sum(one["calls"] for one in stats.values())

    seconds = 2.0
    before, began = calls(), time.monotonic()
    time.sleep(seconds)
    took = time.monotonic() - began

    assert (calls() - before) / took < 60
