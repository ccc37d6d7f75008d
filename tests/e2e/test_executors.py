"""Jobs by the executors that companies run, with workers and triggerers killed."""

from __future__ import annotations

import json
import os
import signal
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from cryptography.fernet import Fernet, InvalidToken

from tests.e2e.executors_dags.executors import LARGE
from tests.e2e.executors_world import (
    API_WORKERS,
    TRIGGERERS,
    WORKERS,
    ExecutorsWorld,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

#: Jobs that are in flight while processes are killed, and jobs of a batch.
JOBS = int(os.environ.get("RUNQY_FAULTS_JOBS", "30"))
BATCH = 20 * JOBS

#: How many of the jobs are of each kind; those by S3 are ended on a worker.
KINDS = {"webhook": JOBS - JOBS // 3, "s3": JOBS // 3}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ExecutorsWorld]:
    with ExitStack() as stack:
        yield ExecutorsWorld(tmp_path_factory.mktemp("executors"), stack)


@pytest.fixture(scope="module")
def remote(world: ExecutorsWorld) -> dict[str, str]:
    """The runs in pods and on an Edge worker, once they have ended: ids, by DAG."""
    runs = {dag_id: world.client.trigger(dag_id) for dag_id in ("pods", "edge")}
    for dag_id, run_id in runs.items():
        world.wait_deferred(dag_id, run_id, "webhook", "s3", count=2)
        world.go(run_id)
    for dag_id, run_id in runs.items():
        world.end_of(dag_id, run_id)
    return runs


@pytest.fixture
def edge(world: ExecutorsWorld, remote: dict[str, str]) -> dict[str, dict[str, Any]]:
    """The tasks of an Edge worker, by their ids."""
    return world.tasks("edge", remote["edge"])


def test_pods_large_results_by_a_rotated_connection_are_returned(
    world: ExecutorsWorld, remote: dict[str, str]
) -> None:
    run_id = remote["pods"]
    tasks = world.tasks("pods", run_id)
    server = psutil.Process(world.airflow.processes["api-server"].pid)

    assert world.client.state("pods", run_id) == "success"
    assert len(server.children()) >= API_WORKERS
    # A triggerer ends the first; the second is resumed in another pod.
    for name, pods in (("webhook", 1), ("s3", 2)):
        assert world.client.xcom(tasks[f"length_of_{name}"]) == LARGE
        assert world.pods(run_id, name) == pods
    # By task: a trigger that runs again, on a busy machine, writes its XCom again.
    files = [path for path in world.xcoms.rglob("*") if path.is_file()]
    stored = {f.parent.name for f in files if "x" * LARGE in f.read_text()}
    assert stored == {"webhook", "s3"}


def test_stored_connection_is_encrypted_with_the_new_key_only(
    world: ExecutorsWorld,
) -> None:
    query = "SELECT extra FROM connection WHERE conn_id = 'runqy_stored'"
    with world.postgres.connect() as database:
        [(stored,)] = database.execute(query).fetchall()

    extra = json.loads(Fernet(world.key).decrypt(stored.encode()))
    assert extra["redis_conn_id"] == "redis_default"
    with pytest.raises(InvalidToken):
        Fernet(world.old_key).decrypt(stored.encode())


@pytest.mark.faults(always=True)
def test_pod_ended_or_killed_retry_waits_for_the_same_job(
    world: ExecutorsWorld,
) -> None:
    before = world.enqueued()
    run_id = world.client.trigger("killed_pods")

    first = world.job_of_pod("killed_pods", run_id, "waits", try_number=1)
    # The kubelet asks first; Airflow then calls on_kill, and does not end the task.
    os.killpg(world.pod(run_id, "waits", try_number=1), signal.SIGTERM)
    kept = "is not deleted: the task may run again"
    world.wait(kept, lambda: kept in world.pod_log(run_id, "waits", try_number=1))
    os.killpg(world.pod(run_id, "waits", try_number=1), signal.SIGKILL)

    second = world.job_of_pod("killed_pods", run_id, "waits", try_number=2)
    os.killpg(world.pod(run_id, "waits", try_number=2), signal.SIGKILL)

    third = world.job_of_pod("killed_pods", run_id, "waits", try_number=3)
    world.go(run_id)
    assert world.end_of("killed_pods", run_id) == "success"
    assert first == second == third
    assert world.enqueued() == before + 1


def test_edge_worker_runs_jobs_and_checks_what_it_reaches(
    world: ExecutorsWorld, edge: dict[str, dict[str, Any]]
) -> None:
    for name in ("webhook", "s3"):
        assert world.client.xcom(edge[name]) == {"index": name}
    assert world.client.xcom(edge["check"]) == []
    # What the worker does not reach, the check there finds, before a job is enqueued.
    away = f"Redis at 127.0.0.1:{world.closed_port}/0"
    failed = world.client.xcom(edge["check_far"])
    assert [away in line for line in failed if line.startswith("[failed] Inbox: ")] == [
        True
    ]
    assert edge["far"]["state"] == "failed"
    assert away in world.client.log(edge["far"])
    assert world.client.xcom(edge["far"], "runqy_job") is None


def test_edge_worker_reports_lineage(
    world: ExecutorsWorld, edge: dict[str, dict[str, Any]]
) -> None:
    events = [json.loads(line) for line in world.lineage.read_text().splitlines()]
    outputs = {
        event["job"]["name"]: [each["namespace"] for each in event["outputs"]]
        for event in events
        if event["eventType"] in ("COMPLETE", "FAIL")
    }

    assert outputs["edge.s3"] == ["s3://results"]
    assert outputs["edge.webhook"] == outputs["edge.far"] == []
    assert "non-valid metadata" not in world.client.log(edge["far"])


@pytest.mark.faults(always=True)
def test_celery_worker_and_triggerer_killed_all_jobs_run_once(
    world: ExecutorsWorld,
) -> None:
    before = world.enqueued()
    run_id = world.client.trigger("celery", KINDS)

    world.wait("some jobs", lambda: world.enqueued() >= before + JOBS / 6)
    world.airflow.kill(WORKERS[0])
    world.start_worker(WORKERS[0])
    world.wait_deferred("celery", run_id, *KINDS, count=JOBS)
    world.airflow.kill(TRIGGERERS[0])
    world.go(run_id)

    assert world.end_of("celery", run_id) == "success"
    world.airflow.start_component(TRIGGERERS[0])
    for ti in world.client.task_instances("celery", run_id):
        if ti["task_id"] in KINDS:
            assert world.client.xcom(ti) == {"index": ti["map_index"]}
    assert world.enqueued() == before + JOBS


@pytest.mark.faults
def test_celery_batch_workers_and_triggerers_killed_all_results_are_there(
    world: ExecutorsWorld,
) -> None:
    before = world.enqueued()
    run_id = world.client.trigger("celery_batch", {"batch": BATCH})

    world.wait("some jobs", lambda: world.enqueued() >= before + BATCH / 10)
    for name in WORKERS:
        world.airflow.kill(name)
        world.start_worker(name)
    world.wait_deferred("celery_batch", run_id, "batch", count=1)
    world.go(run_id)
    world.wait("more jobs", lambda: world.enqueued() >= before + BATCH / 2)
    for name in TRIGGERERS:
        world.airflow.kill(name)
        world.airflow.start_component("triggerer", name)

    assert world.end_of("celery_batch", run_id) == "success"
    found = world.client.xcom(world.tasks("celery_batch", run_id)["summary"])
    assert found == {"results": BATCH, "are_in_order": True}
    assert world.enqueued() == before + BATCH
