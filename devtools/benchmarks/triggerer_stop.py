# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""How long a triggerer takes to stop, with 20 waits of ours, and 20 that only sleep.

``python -m devtools.benchmarks.triggerer_stop [RUNS]``, in the environment of any
version of Airflow: it prints one line of a table. Airflow sends SIGINT, 10 s later
SIGTERM, and 10 s after that SIGKILL.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

WAITS = 20


class Sleeping(BaseTrigger):
    """A trigger that does nothing."""

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path, and no arguments."""
        return f"devtools.benchmarks.triggerer_stop.{type(self).__name__}", {}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Sleep."""
        await asyncio.sleep(3600)
        yield TriggerEvent("slept")  # type: ignore[no-untyped-call] # Airflow's


def _sleeping() -> dict[int, Any]:
    return {n: Sleeping() for n in range(WAITS)}  # type: ignore[no-untyped-call] # Airflow's


def _ours() -> dict[int, Any]:
    from runqy_provider.hooks.runqy import RunqyHook  # noqa: PLC0415 - heavy
    from runqy_provider.triggers.delivery import DeliveryTrigger  # noqa: PLC0415 - heavy

    with RunqyHook() as hook:
        return {
            n: DeliveryTrigger(
                runqy_conn_id="runqy_default",
                delivery_id=f"stop-{time.time_ns()}",
                sink="webhook",
                deadline=time.time() + 3600,
                job_id=hook.enqueue("idle", {"n": n}).job_id,
                runqy_queue="idle.default",
                delete_on_kill=True,
            )
            for n in range(WAITS)
        }


def _seconds(triggers: dict[int, Any], connections: dict[str, Any]) -> float:
    from tests.support.triggerer_process import Triggerer  # noqa: PLC0415 - heavy

    folder = Path(tempfile.mkdtemp(prefix="runqy-stop-"))
    # What Airflow says of their tasks, where a trigger asks: they still wait.
    tasks = {f"t{n}": [("deferred", _job_id(each))] for n, each in triggers.items()}
    with Triggerer(folder, triggers, connections, tasks) as triggerer:
        triggerer.run_until(lambda: triggerer.running == len(triggers))
        # As long as it takes until a wait is under way.
        time.sleep(2)
        return float(triggerer.stop()["seconds"])


def _job_id(trigger: Any) -> str | None:
    job = getattr(trigger, "job", None)
    return None if job is None else str(job.job_id)


def main(runs: int = 3) -> None:
    """Measure, and print a line."""
    from airflow import __version__  # noqa: PLC0415 - heavy

    from tests.support.stack import make_stack  # noqa: PLC0415 - heavy

    kinds = {"sleeping": _sleeping, "ours": _ours}
    found: dict[str, list[float]] = {kind: [] for kind in kinds}
    with ExitStack() as resources:
        code = resources.enter_context(tempfile.TemporaryDirectory())
        stack = resources.enter_context(make_stack(Path(code)))
        for conn_id, fields in stack.connections.items():
            os.environ[f"AIRFLOW_CONN_{conn_id.upper()}"] = json.dumps(fields)
        for _ in range(runs):
            for kind, make in kinds.items():
                found[kind].append(_seconds(make(), stack.connections))
    cells = [
        f"{statistics.median(times):.2f} (max {max(times):.2f})"
        for times in found.values()
    ]
    print("| Airflow | 20 that sleep, s | 20 of ours, s |")
    print(f"| {__version__} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
