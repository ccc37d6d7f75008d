# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""``make faults``: put jobs in flight, cause one fault after another, and count."""

from __future__ import annotations

import argparse
import contextlib
import shutil
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from devtools.airflow import AirflowError
from devtools.faults.backends import NAMES, open_backends
from devtools.faults.catalogue import FAULTS, Fault
from devtools.faults.environment import Environment
from devtools.faults.postgres import running_postgres
from runqy_sandbox.errors import SandboxError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from devtools.faults.environment import Run

HOME = Path(__file__).resolve().parents[2] / ".faults"

#: Seconds within which every task must have ended once the fault is over; the longest
#: road is a helper's five minutes of tries.
LIMIT = 240.0

#: Seconds within which jobs without a wait must have been deleted.
DROP_LIMIT = 60.0

_started = time.monotonic()


@dataclass(frozen=True)
class Row:
    """What came of one fault."""

    message: str
    sink: str
    jobs: int
    succeeded: int
    failed_right: int
    lost: int
    twice: int
    hung: int
    kept: int
    seconds: float

    def is_right(self, fault: Fault) -> bool:
        """Tell whether nothing is amiss."""
        ended = self.failed_right if fault.ends == "failed" else self.succeeded
        enough = ended == self.jobs or fault.ends is None
        return enough and not (self.lost or self.twice or self.hung or self.kept)


def say(message: str) -> None:
    """Tell what happens, with the seconds since the start."""
    print(f"[{time.monotonic() - _started:5.0f} s] {message}", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Cause the faults; 0 only if nothing was lost, hung or enqueued twice."""
    known = [fault.name for fault in FAULTS]
    parser = argparse.ArgumentParser(prog="python -m faults")
    parser.add_argument("--jobs", type=int, default=50, help="in flight for each fault")
    parser.add_argument("--sinks", default="webhook,s3", help=", ".join(NAMES))
    parser.add_argument("--only", help=f"some of: {', '.join(known)}")
    options = parser.parse_args(arguments)
    wanted = options.only.split(",") if options.only else known
    sinks = options.sinks.split(",")
    unknown = {*wanted, *sinks} - {*known, *NAMES}
    if unknown:
        parser.error(f"no such fault or sink: {', '.join(sorted(unknown))}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    shutil.rmtree(HOME, ignore_errors=True)
    rows: list[tuple[Fault, Row]] = []
    try:
        with contextlib.ExitStack() as stack:
            say("Starting PostgreSQL, the sandbox and Airflow ...")
            database = stack.enter_context(running_postgres())
            backends = open_backends(stack, sinks, HOME)
            environment = Environment(HOME, stack, database, backends, say)
            for sink in sinks:
                for fault in FAULTS:
                    if fault.name in wanted and _fits(fault, sink):
                        rows.append(
                            (fault, _cause(environment, fault, sink, options.jobs))
                        )
                        say(f"{fault.name}, {sink}: {rows[-1][1]}")
    except (AirflowError, SandboxError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        _print(rows)
    wrong = sum(not row.is_right(fault) for fault, row in rows)
    print(f"{len(rows)} faults, {wrong} with something amiss.")
    return 1 if wrong or not rows else 0


def _fits(fault: Fault, sink: str) -> bool:
    return sink not in fault.not_sinks and (not fault.sinks or sink in fault.sinks)


def _cause(environment: Environment, fault: Fault, sink: str, jobs: int) -> Row:
    say(f"{fault.name}, {sink}: {jobs} jobs ...")
    fault.before(environment)
    run = environment.start(
        jobs, sink, mode=fault.mode, conn_id=fault.conn_id, dag_id=fault.dag_id
    )
    if fault.after_start is None:
        environment.wait_deferred(run)
    else:
        fault.after_start(environment, run)
    if fault.drops:
        # A trigger that never ran is not called at all: see
        # docs/how-to/retries-and-kills.md.
        environment.wait_triggered(run)
    began = time.monotonic()
    fault.cause(environment, run)
    kept = 0
    if fault.drops:
        kept = environment.wait_dropped(DROP_LIMIT)
        environment.go(run)
    if fault.ends is None:
        is_there = environment.is_there(run)
        found = _Found(hung=jobs if is_there else 0)
    else:
        environment.wait_finished(run, LIMIT)
        found = _find(environment, run, fault)
    enqueued = environment.enqueued(run)
    return Row(
        message=fault.message,
        sink=sink,
        jobs=jobs,
        succeeded=found.succeeded,
        failed_right=found.failed_right,
        lost=found.lost,
        # Too few are amiss, too: what was asked for again was to run again.
        twice=abs(enqueued - jobs * fault.enqueued),
        hung=found.hung,
        kept=kept,
        seconds=time.monotonic() - began,
    )


@dataclass(frozen=True)
class _Found:
    """What tasks have come to."""

    succeeded: int = 0
    failed_right: int = 0
    lost: int = 0
    hung: int = 0


def _find(environment: Environment, run: Run, fault: Fault) -> _Found:
    tasks = {ti["map_index"]: ti for ti in environment.tasks(run)}
    succeeded = [n for n, ti in tasks.items() if ti["state"] == "success"]
    failed = [n for n, ti in tasks.items() if ti["state"] == "failed"]
    right = [n for n in succeeded if environment.client.xcom(tasks[n]) == {"index": n}]
    worded = [
        n
        for n in failed
        if not fault.says or fault.says in environment.client.log(tasks[n])
    ]
    # A value that is another one's is lost, whatever the state says.
    lost = len(succeeded) - len(right)
    lost += len(failed) - (len(worded) if fault.ends == "failed" else 0)
    return _Found(
        succeeded=len(right),
        failed_right=len(worded) if fault.ends == "failed" else 0,
        lost=lost,
        hung=run.jobs - len(succeeded) - len(failed),
    )


def _print(rows: list[tuple[Fault, Row]]) -> None:
    table = Table(title="Faults, with jobs in flight", box=SIMPLE)
    for name in ("fault", "sink", "jobs", "succeeded", "failed with the right message"):
        table.add_column(name)
    for name in ("lost", "enqueued twice", "hung", "not deleted", "seconds", "ok"):
        table.add_column(name)
    for fault, row in rows:
        numbers = (row.jobs, row.succeeded, row.failed_right)
        amiss = (row.lost, row.twice, row.hung, row.kept)
        table.add_row(
            row.message,
            row.sink,
            *(str(number) for number in (*numbers, *amiss)),
            f"{row.seconds:.0f}",
            "yes" if row.is_right(fault) else "NO",
        )
    Console(width=160).print(table)


if __name__ == "__main__":
    sys.exit(main())
