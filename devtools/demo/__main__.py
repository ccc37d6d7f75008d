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
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from devtools.airflow import Airflow, AirflowError
from devtools.client import AirflowClient
from devtools.demo.display import Display
from devtools.demo.examples import EXPECTED, FAN_OUT, FIRST
from devtools.demo.runs import Runs
from runqy_sandbox.errors import SandboxError
from runqy_sandbox.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).resolve().parents[2]
DAGS = ROOT / "dags"
HOME = ROOT / ".demo"

#: Airflow's worker slots: fewer than the tasks of the fan-out.
SLOTS = 4

#: Seconds that Airflow may take to parse the examples.
PARSE_LIMIT = 300.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; return 0 only if every task is as expected."""
    parser = argparse.ArgumentParser(prog="python -m devtools.demo")
    parser.add_argument("--keep", action="store_true", help="leave it all running")
    options = parser.parse_args(arguments)
    # SIGTERM ends the demo and all that it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    shutil.rmtree(HOME, ignore_errors=True)
    for folder in (HOME / "results" / "renders", HOME / "airflow"):
        folder.mkdir(parents=True)
    with Display() as display:
        try:
            return _run(display, keep=options.keep)
        except (AirflowError, SandboxError) as error:
            print(error, file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            return 130
        finally:
            display.say("Everything is stopped.")


def _run(display: Display, *, keep: bool) -> int:
    """Start everything, run the examples, and print what they gave."""
    sandbox = _sandbox()
    connections: dict[str, dict[str, Any]] = {}
    airflow = _airflow(connections, display)
    display.say("Starting Redis, S3, and a stand-in for runqy's server and worker ...")
    with ThreadPoolExecutor() as pool, contextlib.ExitStack() as stack:
        migrated = pool.submit(airflow.migrate)
        stack.enter_context(sandbox)
        migrated.result()
        connections |= sandbox.connections(
            callback_url=f"{airflow.url}/runqy", callback_secret=secrets.token_hex(32)
        )
        connections["results_db"] = {
            "conn_type": "sqlite",
            "host": str(HOME / "results.db"),
        }
        stack.enter_context(airflow)
        display.say(f"Airflow is up: {airflow.url}")
        wrong = _run_examples(AirflowClient(airflow.url), sandbox, display)
        if keep:
            display.print(
                "",
                f"Airflow runs at {airflow.url} (no login); its files: {HOME}",
                "Ctrl-C stops everything.",
            )
            signal.pause()
        return 1 if wrong else 0


def _sandbox() -> Sandbox:
    database = HOME / "results.db"
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.execute(
            "CREATE TABLE tasks (id text PRIMARY KEY, status text NOT NULL, "
            "result text, completed_at timestamp)"
        )
    return Sandbox(
        DAGS / "task_code" / "queues.yaml",
        directory=HOME / "sandbox",
        environment={
            "DATABASE_URL": f"sqlite:///{database}",
            "RUNQY_DELIVERY_DATABASE_URL": f"sqlite:///{database}",
            "RESULTS_FOLDER": str(HOME / "results"),
        },
    )


def _airflow(connections: dict[str, dict[str, Any]], display: Display) -> Airflow:
    return Airflow(
        HOME / "airflow",
        DAGS,
        connections,
        parallelism=SLOTS,
        environment={
            "AIRFLOW_VAR_RUNQY_RESULTS_FOLDER": str(HOME / "results"),
            # By default each file is parsed again every 30 seconds, whether it has
            # changed or not. A file that has changed is parsed at once.
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "120",
        },
        say=display.say,
    )


def _run_examples(client: AirflowClient, sandbox: Sandbox, display: Display) -> int:
    """Run all examples; return how much is not as it should be."""
    runs = Runs(client, EXPECTED, display.show)
    up = time.monotonic()
    client.wait_for_dags({FIRST.dag_id}, PARSE_LIMIT)
    runs.start([FIRST.dag_id])
    runs.watch(lambda: runs.row(FIRST).is_right is not None)
    display.say(f"The first result came {time.monotonic() - up:.0f} s after that.")
    dag_ids = {wanted.dag_id for wanted in EXPECTED}
    client.wait_for_dags(dag_ids, PARSE_LIMIT)
    display.say("Stopping the runqy worker, and starting the fan-out ...")
    sandbox.worker.stop()
    runs.start([FAN_OUT.dag_id])
    # Its tasks are in front of all others' then.
    runs.watch(lambda: len(runs.states(FAN_OUT)) == FAN_OUT.count)
    display.say("Starting all other runs ...")
    runs.start(sorted(dag_ids))
    runs.watch(lambda: runs.states(FAN_OUT).count("deferred") == FAN_OUT.count)
    waiting = runs.states(FAN_OUT).count("deferred")
    display.say("Starting the runqy worker ...")
    sandbox.worker.launch()
    runs.watch()
    # It has been ready for long, unless it did not start: this says why.
    sandbox.worker.wait_until_ready()
    count = sum(row.count for row in runs.rows)
    wrong = sum(not row.is_right for row in runs.rows)
    display.end(
        runs.rows,
        f"{count} tasks, {wrong} not as they should be. "
        "Sinks: webhook, S3, SQL, a shared folder, runqy's own Redis.",
        f"{waiting} tasks of the fan-out waited at once for a runqy worker to start, "
        f"on {SLOTS} worker slots.",
        "Next: make demo KEEP=1 leaves Airflow running; docs/quickstart.md runs a DAG "
        "of your own.",
    )
    if waiting <= SLOTS:
        display.print(
            "More tasks than slots should have waited: they held their slots."
        )
        wrong += 1
    return wrong


if __name__ == "__main__":
    sys.exit(main())
