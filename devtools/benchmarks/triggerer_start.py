# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""How fast a triggerer starts triggers, and passes their events on.

Airflow's real triggerer runs, without a database. All deliveries have arrived before,
so that each wait ends when it has begun. The floor are triggers that fire at once.
"""

from __future__ import annotations

import secrets
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from devtools.benchmarks.inbox_memory import write_deliveries
from devtools.benchmarks.kinds import NAMES, make
from devtools.benchmarks.servers import port_of, running_redis, webhook_connections
from devtools.benchmarks.table import Table
from runqy_delivery import Delivery

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

#: Airflow's triggerer takes 1,000 by default.
SIZES, QUICK_SIZES = (100, 1000), (1000,)


class Firing(BaseTrigger):
    """A trigger that fires at once."""

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path, and no arguments."""
        return f"devtools.benchmarks.triggerer_start.{type(self).__name__}", {}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Fire."""
        yield TriggerEvent("fired")  # type: ignore[no-untyped-call] # Airflow's


def run(*, quick: bool) -> Iterator[Table]:
    """Start both kinds at each size."""
    table = Table(
        "triggerer_start",
        "From the start of a triggerer's first trigger to all events",
        ("kind", "triggers", "s", "triggers per second"),
        note="The seconds begin when Airflow has given the triggerer its triggers.",
    )
    for triggers in QUICK_SIZES if quick else SIZES:
        for kind, name in (("bare", "bare: fires at once"), ("ours", NAMES["ours"])):
            seconds = _seconds(kind, triggers)
            table.add(name, triggers, seconds, triggers / seconds)
            yield table


def _seconds(kind: str, count: int) -> float:
    from tests.support.triggerer_process import Triggerer  # noqa: PLC0415 - heavy

    names = [f"w{number}" for number in range(count)]
    triggers: dict[int, Any] = {
        number: Firing() if kind == "bare" else make(kind, name)  # type: ignore[no-untyped-call] # Airflow's
        for number, name in enumerate(names)
    }
    with running_redis() as redis, tempfile.TemporaryDirectory() as folder:
        write_deliveries(redis, [Delivery(name, result=1) for name in names])
        connections = webhook_connections(port_of(redis), secrets.token_hex(16))
        with Triggerer(Path(folder), triggers, connections) as triggerer:
            triggerer.run_until(lambda: triggerer.running or triggerer.events)
            began = time.time()
            triggerer.run_until(lambda: len(triggerer.events) == count)
            return float(max(triggerer.fired_at.values())) - began
