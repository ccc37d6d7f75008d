"""Faults, caused for real while jobs are in flight, and what becomes of the jobs.

``make faults`` runs all of them, with many jobs and more than one sink; other runs of
the tests only one of each kind: process, store, worker, user, and a burst.
"""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
import requests

from tests.e2e.bursts import deliver_in_bursts
from tests.e2e.faults_world import (
    ALL_SUCCEEDED,
    CLUSTER,
    IN_SLOTS,
    JOBS,
    PAIR,
    RETRIED,
    SENTINELS,
    SINKS,
    FaultsWorld,
    Outcome,
)
from tests.support.caches import clear_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

#: Seconds that something stays away.
AWAY, API_AWAY = 10.0, 30.0

#: Longer than the triggerer's health threshold in ``faults_world.SETTINGS``.
STALL = 25.0

#: Sinks of a fault of the receiver or the inbox.
PUSHED = ("webhook", "s3")


@pytest.fixture(scope="module")
def world(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FaultsWorld]:
    faults = [item.get_closest_marker("faults") for item in request.session.items]
    has_all = not all(fault is None or fault.kwargs["always"] for fault in faults)
    with ExitStack() as stack:
        folder = tmp_path_factory.mktemp("faults")
        yield FaultsWorld(folder, stack, has_all=has_all)


def with_sinks(
    *only: str, without: tuple[str, ...] = (), always: bool = False
) -> pytest.MarkDecorator:
    """Run a fault with each sink that it makes sense for.

    Args:
        only: These sinks; all if none is named.
        without: But not these.
        always: True if each run of the tests has it, with the sink ``webhook``.
    """
    return pytest.mark.parametrize(
        "sink",
        [
            pytest.param(
                sink, marks=pytest.mark.faults(always=always and sink == "webhook")
            )
            for sink in SINKS
            if sink not in without and (not only or sink in only)
        ],
    )


@with_sinks()
def test_faults_none_all_succeed(world: FaultsWorld, sink: str) -> None:
    run = world.in_flight(sink)

    world.go(run)

    assert world.outcome(run) == ALL_SUCCEEDED


@with_sinks()
def test_faults_triggerer_killed_all_succeed(world: FaultsWorld, sink: str) -> None:
    run = world.in_flight(sink)

    world.airflow.kill("triggerer")
    world.go(run)
    world.airflow.start_component("triggerer")

    assert world.outcome(run) == ALL_SUCCEEDED


@with_sinks(always=True)
def test_faults_triggerer_killed_midway_all_succeed(
    world: FaultsWorld, sink: str
) -> None:
    run = world.in_flight(sink)

    world.go(run)
    world.wait_succeeded(run)
    world.airflow.kill("triggerer")
    world.airflow.start_component("triggerer")

    assert world.outcome(run) == ALL_SUCCEEDED


@with_sinks()
def test_faults_triggerer_stalls_all_succeed(world: FaultsWorld, sink: str) -> None:
    run = world.in_flight(sink)

    world.airflow.start_component("triggerer", "triggerer-2")
    world.stall("triggerer", STALL)
    # It has lost its triggers by now, and learns that: it must not delete a job.
    time.sleep(5)
    world.go(run)

    found = world.outcome(run)
    world.airflow.kill("triggerer-2")
    assert found == ALL_SUCCEEDED


@with_sinks()
def test_faults_triggerer_stalls_midway_all_succeed(
    world: FaultsWorld, sink: str
) -> None:
    run = world.in_flight(sink)

    world.airflow.start_component("triggerer", "triggerer-2")
    world.go(run)
    world.wait_succeeded(run)
    world.stall("triggerer", STALL)

    found = world.outcome(run)
    world.airflow.kill("triggerer-2")
    assert found == ALL_SUCCEEDED


@with_sinks()
def test_faults_api_away_all_succeed(world: FaultsWorld, sink: str) -> None:
    # Results of other sinks arrive meanwhile, so Airflow starts tasks, which it then
    # fails; the next attempt is to take the result.
    how = {} if sink == "webhook" else {"dag_id": RETRIED}
    run = world.in_flight(sink, **how)

    world.airflow.kill("api-server")
    world.go(run)
    time.sleep(API_AWAY)
    world.airflow.start_component("api-server")

    assert world.outcome(run) == ALL_SUCCEEDED


@with_sinks()
def test_faults_scheduler_killed_all_succeed(world: FaultsWorld, sink: str) -> None:
    run = world.in_flight(sink)

    world.airflow.kill("scheduler")
    world.go(run)
    world.airflow.start_component("scheduler")

    assert world.outcome(run) == ALL_SUCCEEDED


@with_sinks()
def test_faults_redis_restarts_all_succeed(world: FaultsWorld, sink: str) -> None:
    run = world.in_flight(sink)

    world.sandbox.redis.stop()
    world.sandbox.redis.start()
    world.go(run)

    assert world.outcome(run) == ALL_SUCCEEDED


@with_sinks(always=True)
def test_faults_redis_away_all_succeed(world: FaultsWorld, sink: str) -> None:
    run = world.in_flight(sink)

    world.sandbox.redis.stop()
    world.go(run)
    time.sleep(AWAY)
    world.sandbox.redis.start()

    assert world.outcome(run) == ALL_SUCCEEDED


@with_sinks(*PUSHED, always=True)
def test_faults_redis_failover_all_succeed(world: FaultsWorld, sink: str) -> None:
    run = world.in_flight(sink, conn_id=PAIR)

    world.inbox.fail_over()
    world.go(run)

    assert world.outcome(run) == ALL_SUCCEEDED


@with_sinks(*PUSHED)
def test_faults_cluster_primary_killed_all_succeed(
    world: FaultsWorld, sink: str
) -> None:
    world.cluster.wait_until_complete()
    run = world.in_flight(sink, conn_id=CLUSTER)
    # One node has all keys of the connection.
    key = f"{{{CLUSTER}}}"
    primary = world.cluster.primary_of(key)

    world.go(run)
    world.wait_succeeded(run)
    primary.child.kill()
    world.cluster.wait_for_failover(primary, key)
    primary.child.start()

    assert world.outcome(run) == ALL_SUCCEEDED


@with_sinks(*PUSHED)
def test_faults_sentinel_primary_killed_all_succeed(
    world: FaultsWorld, sink: str
) -> None:
    world.sentinels.wait_until_complete()
    run = world.in_flight(sink, conn_id=SENTINELS)
    primary = world.sentinels.primary()

    world.go(run)
    world.wait_succeeded(run)
    primary.child.kill()
    world.sentinels.wait_for_failover(primary)
    primary.child.start()

    assert world.outcome(run) == ALL_SUCCEEDED


@with_sinks()
def test_faults_server_away_at_enqueue_all_succeed(
    world: FaultsWorld, sink: str
) -> None:
    world.sandbox.server.stop()
    run = world.start(sink)

    time.sleep(15)
    world.sandbox.server.start()
    world.go(run)

    assert world.outcome(run) == ALL_SUCCEEDED


@with_sinks(always=True)
def test_faults_worker_killed_all_succeed(world: FaultsWorld, sink: str) -> None:
    run = world.in_flight(sink)

    world.sandbox.worker.kill()
    world.sandbox.worker.start()
    world.go(run)

    assert world.outcome(run) == ALL_SUCCEEDED


@with_sinks()
def test_faults_task_crash_all_succeed(world: FaultsWorld, sink: str) -> None:
    run = world.in_flight(sink, mode="crash")

    world.go(run)

    assert world.outcome(run) == ALL_SUCCEEDED


@with_sinks("webhook")
def test_faults_delivered_thrice_first_body_counts(
    world: FaultsWorld, sink: str
) -> None:
    run = world.in_flight(sink, mode="thrice")

    world.go(run)

    assert world.outcome(run) == ALL_SUCCEEDED


@with_sinks()
def test_faults_delivered_early_all_succeed(world: FaultsWorld, sink: str) -> None:
    world.airflow.kill("triggerer")
    run = world.start(sink)

    world.go(run)
    # Some are so quick that their tasks need not defer.
    world.wait_deferred(run, "success")
    time.sleep(3)
    world.airflow.start_component("triggerer")

    assert world.outcome(run) == ALL_SUCCEEDED


@pytest.mark.parametrize("clock", ["ahead", "behind"])
@with_sinks(*PUSHED)
def test_faults_clock_of_receiver_is_off_all_succeed(
    world: FaultsWorld, sink: str, clock: str
) -> None:
    run = world.in_flight(sink, conn_id=f"runqy_{clock}")

    world.go(run)

    assert world.outcome(run) == ALL_SUCCEEDED


@with_sinks()
def test_faults_tasks_killed_all_succeed(world: FaultsWorld, sink: str) -> None:
    run = world.start(sink, dag_id=IN_SLOTS)
    world.wait_slots_full(run)

    tasks = world.airflow.task_processes()
    for task in tasks:
        task.kill()
    world.go(run)

    assert tasks
    assert world.outcome(run) == ALL_SUCCEEDED


# In redis_storage, what it returns is the result.
@with_sinks(without=("redis_storage",))
def test_faults_silent_task_code_fails_with_its_reason(
    world: FaultsWorld, sink: str
) -> None:
    run = world.in_flight(sink, mode="silent")

    world.go(run)

    found = world.outcome(run, says="without delivering")
    assert found == Outcome(failed=JOBS)


@with_sinks(always=True)
def test_faults_cleared_task_runs_a_second_job(world: FaultsWorld, sink: str) -> None:
    run = world.in_flight(sink)

    body = {
        "dry_run": False,
        "dag_run_id": run.run_id,
        "task_ids": ["job"],
        "only_failed": False,
        "reset_dag_runs": True,
    }
    world.client.post(f"/dags/{run.dag_id}/clearTaskInstances", body)
    world.go(run)

    assert world.outcome(run) == Outcome(succeeded=JOBS, enqueued=2)


@with_sinks()
def test_faults_marked_failed_jobs_are_deleted(world: FaultsWorld, sink: str) -> None:
    run = world.in_flight(sink)
    # A trigger that never ran is not called at all: see
    # docs/how-to/retries-and-kills.md.
    world.wait_triggered(run)

    for index in range(JOBS):
        path = f"/dags/{run.dag_id}/dagRuns/{run.run_id}/taskInstances/job/{index}"
        world.client.patch(path, {"new_state": "failed"})

    world.wait_deleted()
    world.go(run)
    assert {ti["state"] for ti in world.tasks(run)} == {"failed"}


@with_sinks()
def test_faults_run_deleted_jobs_are_deleted(world: FaultsWorld, sink: str) -> None:
    run = world.in_flight(sink)
    world.wait_triggered(run)

    _delete_run(world, f"/dags/{run.dag_id}/dagRuns/{run.run_id}")

    world.wait_deleted()
    world.go(run)
    assert not world.is_there(run)


@pytest.mark.faults(always=True)
def test_channel_deliveries_in_bursts_are_each_taken_once(
    world: FaultsWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    for conn_id in ("good", "redis_default"):
        fields = json.dumps(world.connections[conn_id])
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", fields)
    clear_settings()

    deliver_in_bursts(world.client, "good")


def _delete_run(world: FaultsWorld, path: str) -> None:
    """Delete a run: Airflow deletes one that is queued again, but none that runs."""
    end = time.monotonic() + 60
    while True:
        world.client.patch(path, {"state": "queued"})
        try:
            world.client.delete(path)
        except requests.HTTPError as error:
            # The scheduler was quicker.
            is_running = error.response.status_code == requests.codes.conflict
            if not is_running or time.monotonic() > end:
                raise
        else:
            return
