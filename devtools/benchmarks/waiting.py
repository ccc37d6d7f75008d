# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""What waiting costs a triggerer: memory, connections, processor, blocks of its loop.

Each kind of wait is in a process of its own, started as a triggerer starts it, then
idle for some seconds, against a Redis and an S3 endpoint. The peers are the redis
provider's AwaitMessageTrigger and amazon's S3KeyTrigger, the floor is a trigger of
Airflow that waits for nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from redis import Redis

from devtools.benchmarks.kinds import NAMES
from devtools.benchmarks.process_cost import connections, memory
from devtools.benchmarks.servers import CONN_ID, as_environment
from devtools.benchmarks.table import Table
from devtools.benchmarks.wait_process import TICK, calm_down, start
from runqy_sandbox.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator

SIZES, QUICK_SIZES = (100, 1000, 10_000), (1000,)

KINDS = ("floor", "ours", "ours_jobs", "ours_s3", "redis", "s3")
QUICK_KINDS = ("floor", "ours", "redis")

#: The most waits for the peers: more take minutes to start.
MOST_OF_PEER = {"redis": 1000, "s3": 100}

#: Seconds of idling: for the processor, in which all waits are polled once; for blocks.
WINDOW, BLOCKS_WINDOW = 10.0, 4.0

#: The most seconds that starting may take.
START = 200.0


def run(*, quick: bool) -> Iterator[Table]:
    """Measure each kind at each size."""
    table = new_table("waiting")
    with Sandbox({"queues": {"idle": {}}}) as sandbox:
        for waits in QUICK_SIZES if quick else SIZES:
            kinds = QUICK_KINDS if quick else KINDS
            yield from rows(table, sandbox, waits, kinds)


def new_table(name: str) -> Table:
    """Return a table without rows."""
    return Table(
        name,
        "What a wait costs a triggerer",
        (
            *("kind", "waits", "KiB per wait", "of it ours", "more connections"),
            *("% of a core, idle", "longest block ms, starting", "idle"),
        ),
        note="*more connections*: those that the waits add to the first one.",
    )


def rows(
    table: Table, sandbox: Sandbox, waits: int, kinds: tuple[str, ...]
) -> Iterator[Table]:
    """Measure some kinds, the floor first, and add a row for each."""
    floor = 0.0
    for kind in kinds:
        if waits <= MOST_OF_PEER.get(kind, waits):
            row = _measure(sandbox, kind, waits)
            floor = row["kib"] if kind == "floor" else floor
            table.add(
                NAMES[kind],
                int(row["waits"]),
                row["kib"],
                None if kind == "floor" else row["kib"] - floor,
                int(row["connections"]),
                row["cpu"],
                row["starting"],
                row["idle"],
            )
            yield table


def _measure(sandbox: Sandbox, kind: str, waits: int) -> dict[str, float]:
    with Redis.from_url(sandbox.redis_url) as redis:
        redis.flushall()  # jobs of an earlier row would be looked at, too
    chosen = (
        sandbox.connections()
        if kind == "ours_s3"
        else sandbox.connections("http://127.0.0.1:9/runqy", "s" * 32)
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", __name__, kind, str(waits)],
        env={**os.environ, **as_environment(chosen)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    row: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return row


def enqueue(names: list[str]) -> None:
    """Enqueue the jobs that are observed; no worker takes them."""
    from runqy_provider.client.models import JobOptions  # noqa: PLC0415 - heavy
    from runqy_provider.client.redis_transport import (  # noqa: PLC0415 - heavy
        NewJob,
        RedisTransport,
    )
    from runqy_provider.settings import load_settings  # noqa: PLC0415 - heavy

    redis = load_settings(CONN_ID).runqy_redis
    if redis is None:
        raise RuntimeError("the connection does not name runqy's own Redis")
    with contextlib.closing(RedisTransport(redis)) as transport:
        for first in range(0, len(names), 1000):
            batch = names[first : first + 1000]
            jobs = [NewJob(f"job-{name}", {"name": name}) for name in batch]
            transport.enqueue("idle.default", jobs, JobOptions())


class Blocks:
    """Records for how long the event loop was blocked."""

    def __init__(self) -> None:
        self.longest = 0.0

    async def record(self) -> None:
        """Record until cancelled."""
        while True:
            began = time.monotonic()
            await asyncio.sleep(TICK)
            self.longest = max(self.longest, time.monotonic() - began - TICK)

    def take(self) -> float:
        """Return the longest block since the last time, in milliseconds."""
        longest, self.longest = self.longest, 0.0
        return longest * 1000


async def idle(kind: str, waits: int) -> dict[str, float]:
    """Start the waits, let them idle, and return what that cost."""
    names = [f"w{number}" for number in range(waits + 1)]
    if kind == "ours_jobs":
        enqueue(names)
    first = await start(kind, names[:1], START)
    await asyncio.sleep(2)  # imports and clients are not a cost of a wait
    gc.collect()
    before, sockets = memory(), connections()
    blocks = Blocks()
    recorder = asyncio.create_task(blocks.record())
    tasks = await start(kind, names[1:], START)
    await calm_down(5)
    starting = blocks.take()
    recorder.cancel()
    # Without the recorder, which takes more than all our waits.
    cpu, clock = time.process_time(), time.monotonic()
    await asyncio.sleep(WINDOW)
    spent = (time.process_time() - cpu) / (time.monotonic() - clock)
    recorder = asyncio.create_task(blocks.record())
    await asyncio.sleep(BLOCKS_WINDOW)
    recorder.cancel()
    for task in (*first, *tasks):
        if task.done():
            raise RuntimeError(f"a wait of {kind!r} ended") from task.exception()
    return {
        "waits": len(tasks),
        "kib": (memory() - before) / len(tasks),
        "connections": connections() - sockets,
        "cpu": spent * 100,
        "starting": starting,
        "idle": blocks.take(),
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(idle(sys.argv[1], int(sys.argv[2])))), flush=True)
    # Cancelling ten thousand waits is not measured, and takes long.
    os._exit(0)
