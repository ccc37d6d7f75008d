# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""How long a triggerer takes to stop, with 20 waits of ours, and 20 that only sleep.

Airflow sends SIGINT, 10 s later SIGTERM, and 10 s after that SIGKILL. The floor are
triggers that sleep. It runs in the environment of any version of Airflow.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from devtools.benchmarks.servers import as_environment
from devtools.benchmarks.table import Table
from runqy_sandbox.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

WAITS = 20

RUNS, QUICK_RUNS = 2, 1


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
                delete_abandoned=True,
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


def run(*, quick: bool) -> Iterator[Table]:
    """Stop triggerers with both kinds, in turns."""
    table = Table(
        "triggerer_stop",
        f"How long a triggerer with {WAITS} waits takes to stop",
        ("waits", "s"),
    )
    kinds = {"bare: sleeping": _sleeping, "ours": _ours}
    with Sandbox({"queues": {"idle": {}}}) as sandbox:
        connections = sandbox.connections("http://127.0.0.1:9/runqy", "s" * 32)
        os.environ.update(as_environment(connections))
        for _ in range(QUICK_RUNS if quick else RUNS):
            for kind, make in kinds.items():
                table.add(kind, _seconds(make(), connections))
                yield table
