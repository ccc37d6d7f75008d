# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The faults: what is done while jobs are in flight, and what must come of it."""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import requests

from devtools.faults.environment import (
    CLUSTER,
    DAG,
    IN_SLOTS,
    PAIR,
    RETRIED,
    SENTINELS,
    SLOTS,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from devtools.faults.environment import Environment, Run

#: Seconds that something stays away.
AWAY = 20.0
API_AWAY = 30.0

#: Longer than the triggerer's health threshold in ``world.SETTINGS``.
STALL = 25.0


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        name: What it is called on the command line.
        message: What it is, in the table.
        cause: Called once all jobs are in flight; must let them go on.
        before: Called before any job is enqueued.
        after_start: Called at once after the run was started, in place of waiting until
            all jobs are in flight.
        mode: How the jobs behave.
        conn_id: The runqy connection.
        dag_id: The DAG.
        ends: The state that tasks must end in; None: they are gone.
        says: What the log of a task that fails must say.
        enqueued: How many jobs are to be enqueued for a task: more than one only where
            a user has asked for it again.
        drops: True where jobs that have not begun must be deleted, and are held back
            until that is so.
        sinks: Short names of the sinks that it makes sense for; all where empty.
        not_sinks: Of those that it makes none for.
    """

    name: str
    message: str
    cause: Callable[[Environment, Run], None]
    before: Callable[[Environment], None] = lambda _world: None
    after_start: Callable[[Environment, Run], None] | None = None
    mode: str = ""
    conn_id: str = "runqy_default"
    dag_id: str = DAG
    ends: str | None = "success"
    says: str = ""
    enqueued: int = 1
    drops: bool = False
    sinks: tuple[str, ...] = ()
    not_sinks: tuple[str, ...] = ()


def _go(environment: Environment, run: Run) -> None:
    environment.go(run)


def _triggerer_killed(environment: Environment, run: Run) -> None:
    environment.kill("triggerer")
    environment.go(run)
    environment.airflow.start_component("triggerer")


def _triggerer_stalls(environment: Environment, run: Run) -> None:
    environment.airflow.start_component("triggerer", "triggerer-2")
    environment.send("triggerer", signal.SIGSTOP)
    time.sleep(STALL)
    environment.send("triggerer", signal.SIGCONT)
    # It has lost its triggers by now, and learns that: it must not delete a job.
    time.sleep(5)
    environment.go(run)
    environment.wait_finished(run, 120)
    environment.kill("triggerer-2")


def _triggerer_killed_midway(environment: Environment, run: Run) -> None:
    environment.go(run)
    environment.wait_succeeded(run, 1)
    environment.kill("triggerer")
    environment.airflow.start_component("triggerer")


def _triggerer_stalls_midway(environment: Environment, run: Run) -> None:
    environment.airflow.start_component("triggerer", "triggerer-2")
    environment.go(run)
    environment.wait_succeeded(run, 1)
    environment.send("triggerer", signal.SIGSTOP)
    time.sleep(STALL)
    environment.send("triggerer", signal.SIGCONT)
    environment.wait_finished(run, 120)
    environment.kill("triggerer-2")


def _api_away(environment: Environment, run: Run) -> None:
    environment.kill("api-server")
    environment.go(run)
    time.sleep(API_AWAY)
    environment.airflow.start_component("api-server")


def _scheduler_killed(environment: Environment, run: Run) -> None:
    environment.kill("scheduler")
    environment.go(run)
    environment.airflow.start_component("scheduler")


def _redis_restarts(environment: Environment, run: Run) -> None:
    environment.sandbox.redis.stop()
    environment.sandbox.redis.start()
    environment.go(run)


def _redis_away(environment: Environment, run: Run) -> None:
    environment.sandbox.redis.stop()
    environment.go(run)
    time.sleep(AWAY)
    environment.sandbox.redis.start()


def _redis_fails_over(environment: Environment, run: Run) -> None:
    environment.inbox.fail_over()
    environment.go(run)


def _cluster_primary_killed(environment: Environment, run: Run) -> None:
    """Kill the node that has all keys of the connection, and start it again later."""
    cluster, key = environment.cluster, f"{{{CLUSTER}}}"
    primary = cluster.primary_of(key)
    environment.go(run)
    environment.wait_succeeded(run, 1)
    primary.child.kill()
    cluster.wait_for_failover(primary, key)
    primary.child.start()


def _sentinels_primary_killed(environment: Environment, run: Run) -> None:
    primary = environment.sentinels.primary()
    environment.go(run)
    environment.wait_succeeded(run, 1)
    primary.child.kill()
    environment.sentinels.wait_for_failover(primary)
    primary.child.start()


def _server_away(environment: Environment) -> None:
    environment.sandbox.server.stop()


def _server_comes(environment: Environment, run: Run) -> None:
    time.sleep(15)
    environment.sandbox.server.start()
    environment.go(run)


def _worker_killed(environment: Environment, run: Run) -> None:
    environment.sandbox.worker.kill()
    environment.sandbox.worker.start()
    environment.go(run)


def _no_triggerer(environment: Environment) -> None:
    environment.kill("triggerer")


def _early(environment: Environment, run: Run) -> None:
    environment.go(run)
    # Some are so quick that their tasks need not defer.
    environment.wait_deferred(run, also=("success",))
    time.sleep(3)
    environment.airflow.start_component("triggerer")


def _cleared(environment: Environment, run: Run) -> None:
    body = {
        "dry_run": False,
        "dag_run_id": run.run_id,
        "task_ids": ["job"],
        "only_failed": False,
        "reset_dag_runs": True,
    }
    environment.client.post(f"/dags/{DAG}/clearTaskInstances", body)
    environment.go(run)


def _marked_failed(environment: Environment, run: Run) -> None:
    for index in range(run.jobs):
        path = f"/dags/{DAG}/dagRuns/{run.run_id}/taskInstances/job/{index}"
        environment.client.patch(path, {"new_state": "failed"})


def _run_deleted(environment: Environment, run: Run) -> None:
    # Airflow deletes no run that is running; one that was queued again it does.
    path = f"/dags/{DAG}/dagRuns/{run.run_id}"
    end = time.monotonic() + 60
    while True:
        environment.client.patch(path, {"state": "queued"})
        try:
            environment.client.delete(path)
        except requests.HTTPError as error:
            # The scheduler was quicker.
            is_running = error.response.status_code == requests.codes.conflict
            if not is_running or time.monotonic() > end:
                raise
        else:
            return


def _slots_full(environment: Environment, run: Run) -> None:
    """Wait until as many tasks as there are slots have enqueued, and wait in them."""
    end = time.monotonic() + 120
    while environment.enqueued(run) < min(SLOTS, run.jobs):
        if time.monotonic() > end:
            raise TimeoutError("the slots did not fill")
        time.sleep(0.2)


def _tasks_killed(environment: Environment, run: Run) -> None:
    if environment.kill_tasks() == 0:
        raise RuntimeError("no task ran that could be killed")
    environment.go(run)


FAULTS = (
    Fault("none", "no fault: a burst of jobs that end as they can", _go),
    Fault("triggerer-killed", "triggerer: kill -9, started again", _triggerer_killed),
    Fault("triggerer-stalls", "one of two triggerers stalls", _triggerer_stalls),
    Fault(
        "triggerer-killed-midway",
        "triggerer: kill -9 while it ends tasks, started again",
        _triggerer_killed_midway,
    ),
    Fault(
        "triggerer-stalls-midway",
        "one of two triggerers stalls while it ends tasks",
        _triggerer_stalls_midway,
    ),
    Fault(
        "api-away",
        f"API server away {API_AWAY:.0f} s as jobs deliver",
        _api_away,
        sinks=("webhook",),
    ),
    # Their results arrive meanwhile, so Airflow starts tasks, which it then fails; the
    # next attempt is to take the result. See docs/how-to/retries-and-kills.md.
    Fault(
        "api-away",
        f"API server away {API_AWAY:.0f} s as jobs deliver, tasks with retries",
        _api_away,
        dag_id=RETRIED,
        not_sinks=("webhook",),
    ),
    Fault("scheduler-killed", "scheduler: kill -9, started again", _scheduler_killed),
    Fault("redis-restarts", "Redis restarted, append-only file", _redis_restarts),
    Fault("redis-away", f"Redis away for {AWAY:.0f} s as jobs deliver", _redis_away),
    Fault(
        "redis-failover",
        "the inbox's Redis fails over behind one address",
        _redis_fails_over,
        conn_id=PAIR,
        sinks=("webhook", "s3"),
    ),
    Fault(
        "cluster-primary-killed",
        "the inbox's Redis Cluster: kill -9 of its primary as jobs deliver",
        _cluster_primary_killed,
        before=lambda environment: environment.cluster.wait_until_complete(),
        conn_id=CLUSTER,
        sinks=("webhook", "s3"),
    ),
    Fault(
        "sentinel-primary-killed",
        "the inbox's Redis with Sentinels: kill -9 of its primary as jobs deliver",
        _sentinels_primary_killed,
        before=lambda environment: environment.sentinels.wait_until_complete(),
        conn_id=SENTINELS,
        sinks=("webhook", "s3"),
    ),
    Fault(
        "server-away",
        "runqy server away at enqueue",
        _go,
        before=_server_away,
        after_start=_server_comes,
    ),
    Fault("worker-killed", "runqy worker: kill -9 with jobs active", _worker_killed),
    Fault("task-crash", "task process dies in the midst of a job", _go, mode="crash"),
    Fault(
        "thrice",
        "delivered three times, another body the third time",
        _go,
        mode="thrice",
        sinks=("webhook",),
    ),
    Fault(
        "early",
        "delivered before the trigger starts",
        _go,
        before=_no_triggerer,
        after_start=_early,
    ),
    Fault(
        "clock-ahead",
        "receiver's clock 10 minutes ahead, signed",
        _go,
        conn_id="runqy_ahead",
        sinks=("webhook", "s3"),
    ),
    Fault(
        "clock-behind",
        "receiver's clock 10 minutes behind, signed",
        _go,
        conn_id="runqy_behind",
        sinks=("webhook", "s3"),
    ),
    Fault(
        "tasks-killed",
        "workers: kill -9 after they enqueued",
        _tasks_killed,
        after_start=_slots_full,
        dag_id=IN_SLOTS,
    ),
    Fault(
        "silent",
        "task code ends without delivering",
        _go,
        mode="silent",
        ends="failed",
        says="without delivering",
        not_sinks=("redis_storage",),  # there, what it returns is the result
    ),
    Fault("cleared", "task cleared while waiting", _cleared, enqueued=2),
    Fault(
        "marked-failed",
        "task marked failed while waiting",
        _marked_failed,
        ends="failed",
        drops=True,
    ),
    Fault(
        "run-deleted",
        "DAG run deleted while waiting",
        _run_deleted,
        ends=None,
        drops=True,
    ),
)
