# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""``make demo``: start everything, run the example DAGs, print the outcome."""

from __future__ import annotations

import argparse
import contextlib
import secrets
import shutil
import signal
import sqlite3
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from devtools.airflow import Airflow, AirflowError
from devtools.client import FINISHED, AirflowClient
from devtools.demo.report import Expected, print_table, rows_of
from runqy_sandbox.errors import SandboxError
from runqy_sandbox.process.net import free_port
from runqy_sandbox.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).resolve().parents[2]
DAGS = ROOT / "dags"
HOME = ROOT / ".demo"

#: Seconds without any change after which the runs are given up.
STUCK_AFTER = 120.0

SLOTS = 4

FAN_OUT = "runqy_fan_out"

EXPECTED = (
    Expected("runqy_webhook", "transcribe", lambda v: "what was said" in str(v)),
    Expected("runqy_webhook", "summarise", lambda v: str(v).strip('"') == "5 words"),
    Expected("runqy_s3_bytes", "render", lambda v: "s3://results/renders/" in str(v)),
    Expected("runqy_s3_bytes", "inspect", lambda v: "'width': 200" in _plain(v)),
    Expected(FAN_OUT, "resize", lambda v: "'width': 1280" in _plain(v), 12),
    Expected(FAN_OUT, "count", lambda v: str(v) == "12"),
    Expected("runqy_taskflow", "resize", lambda v: "'width': 1280" in _plain(v), 3),
    Expected("runqy_taskflow", "total", lambda v: str(v) == "3840"),
    Expected("runqy_batch", "resize", lambda v: "#manifest" in str(v)),
    Expected("runqy_batch", "count", lambda v: str(v) == "50"),
    Expected(
        "runqy_batch",
        "resize_again",
        lambda v: _plain(v).count("'width': 1280") == 20,
    ),
    Expected("runqy_guide", "by_webhook", lambda v: "'sum': 6" in _plain(v)),
    Expected("runqy_guide", "by_s3", lambda v: "'sum': 15" in _plain(v)),
    Expected("runqy_redis_storage", "classify", lambda v: "cat" in str(v)),
    Expected("runqy_redis_storage", "by_guide", lambda v: "'sum': 24" in _plain(v)),
    Expected("runqy_sql", "by_guide", lambda v: "'sum': 7" in _plain(v)),
    Expected("runqy_sql", "resize", lambda v: "'width': 1280" in _plain(v)),
    Expected("runqy_shared_folder", "by_guide", lambda v: "'sum': 9" in _plain(v)),
    Expected("runqy_shared_folder", "render", lambda v: "/renders/" in str(v)),
    Expected("runqy_combined", "render", lambda v: "s3://results/combined/" in str(v)),
    Expected(
        "runqy_failing",
        "transcribe",
        lambda log: "ValueError: recording.silence has nothing to hear" in log,
        state="failed",
    ),
)

_started = time.monotonic()


def _plain(value: Any) -> str:
    return str(value).replace('"', "'")


def say(message: str) -> None:
    """Print what happens, with the seconds since the start."""
    print(f"[{time.monotonic() - _started:5.0f} s] {message}", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; return 0 only if every row is as expected."""
    parser = argparse.ArgumentParser(prog="python -m devtools.demo")
    parser.add_argument("--keep", action="store_true", help="leave it all running")
    options = parser.parse_args(arguments)
    # SIGTERM ends the demo and all that it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    shutil.rmtree(HOME, ignore_errors=True)
    port = free_port()
    say("Starting the sandbox: Redis, S3, a stand-in for runqy's server and worker ...")
    database, folder = HOME / "results.db", HOME / "results"
    for each in (folder, folder / "renders"):
        each.mkdir(parents=True)
    _make_table(database)
    sandbox = Sandbox(
        DAGS / "task_code" / "queues.yaml",
        directory=HOME / "sandbox",
        environment={
            "DATABASE_URL": f"sqlite:///{database}",
            "RUNQY_DELIVERY_DATABASE_URL": f"sqlite:///{database}",
            "RESULTS_FOLDER": str(folder),
        },
    )
    try:
        with sandbox:
            connections = sandbox.connections(
                callback_url=f"http://127.0.0.1:{port}/runqy",
                callback_secret=secrets.token_hex(32),
            )
            connections["results_db"] = {"conn_type": "sqlite", "host": str(database)}
            airflow = Airflow(
                HOME / "airflow",
                DAGS,
                connections,
                parallelism=SLOTS,
                port=port,
                environment={"AIRFLOW_VAR_RUNQY_RESULTS_FOLDER": str(folder)},
                say=say,
            )
            return _run(airflow, sandbox, keep=options.keep)
    except (AirflowError, SandboxError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        say("Everything is stopped.")


def _make_table(database: Path) -> None:
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.execute(
            "CREATE TABLE tasks (id text PRIMARY KEY, status text NOT NULL, "
            "result text, completed_at timestamp)"
        )


def _run(airflow: Airflow, sandbox: Sandbox, *, keep: bool) -> int:
    with airflow:
        client = AirflowClient(airflow.url)
        dag_ids = {wanted.dag_id for wanted in EXPECTED}
        say("Waiting for the DAGs to be parsed ...")
        client.wait_for_dags(dag_ids)
        waiting, run_id = _fill(client, sandbox)
        run_ids = {FAN_OUT: run_id}
        run_ids |= {each: client.trigger(each) for each in dag_ids - {FAN_OUT}}
        _watch(client, run_ids)
        rows = rows_of(client, run_ids, EXPECTED)
        print_table(rows)
        wrong = sum(not row.is_right for row in rows)
        print(
            f"{waiting} tasks of the fan-out waited at once for a runqy worker to "
            f"start, on {SLOTS} worker slots of Airflow's."
        )
        print(f"{len(rows)} tasks, {wrong} not as they should be.")
        if waiting <= SLOTS:
            print("The fan-out held its slots: more tasks should have waited at once.")
            wrong += 1
        if keep:
            print(f"\nAirflow runs at {airflow.url} (no login); its files: {HOME}")
            print("Ctrl-C stops everything.", flush=True)
            signal.pause()
        return 1 if wrong else 0


def _fill(client: AirflowClient, sandbox: Sandbox) -> tuple[int, str]:
    """Start the fan-out while no runqy worker runs, until more tasks wait than slots.

    Returns:
        How many waited, and the id of the run.
    """
    sandbox.worker.stop()
    run_id = client.trigger(FAN_OUT)
    progress = Progress()
    waiting = 0
    while waiting <= SLOTS and not progress.is_stuck:
        tasks = client.task_instances(FAN_OUT, run_id)
        waiting = sum(ti["state"] == "deferred" for ti in tasks)
        progress.note(f"{waiting} of the fan-out wait", _states(tasks))
        time.sleep(0.5)
    say("Starting the runqy worker and the other runs ...")
    sandbox.worker.start()
    return waiting, run_id


def _watch(client: AirflowClient, run_ids: dict[str, str]) -> None:
    """Wait for all runs, and print their progress."""
    progress = Progress()
    while not progress.is_stuck:
        job_states = {dag: client.state(dag, run) for dag, run in run_ids.items()}
        tasks = [
            ti for dag, run in run_ids.items() for ti in client.task_instances(dag, run)
        ]
        done = [dag for dag, state in job_states.items() if state in FINISHED]
        progress.note(f"{len(done)} of {len(job_states)} runs done", _states(tasks))
        if len(done) == len(job_states):
            return
        time.sleep(0.5)


def _states(tasks: list[dict[str, Any]]) -> object:
    return sorted((ti["id"], str(ti["state"])) for ti in tasks)


class Progress:
    """Prints what is new, and notices when nothing has changed for a while."""

    def __init__(self) -> None:
        self._message = ""
        self._seen: object = None
        self._changed = time.monotonic()

    @property
    def is_stuck(self) -> bool:
        """True once nothing has changed for ``STUCK_AFTER`` seconds."""
        return time.monotonic() - self._changed > STUCK_AFTER

    def note(self, message: str, seen: object) -> None:
        """Record the current state.

        Args:
            message: Text for the person who watches; printed if it is new.
            seen: Any value that changes with each progress.
        """
        if message != self._message:
            say(message)
        if (message, seen) != (self._message, self._seen):
            self._changed = time.monotonic()
        self._message, self._seen = message, seen


if __name__ == "__main__":
    sys.exit(main())
