# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""What waiting costs a triggerer: memory, connections, processor, blocks of its loop.

``python -m devtools.benchmarks.waiting [WAITS ...]``, by default 100, 1,000 and 10,000:
each kind of trigger in a process of its own, started as a triggerer starts them, then
idle for some seconds, against the same Redis and S3 endpoint. In the same run: the
peers, the redis provider's AwaitMessageTrigger and amazon's S3KeyTrigger, and the
floor, a trigger of Airflow that waits for nothing.
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
from pathlib import Path
from typing import TYPE_CHECKING, Any

import greenback
from airflow.triggers.base import BaseTrigger, TriggerEvent

from devtools.benchmarks.webhook_latency import CONN_ID, first_event
from runqy_sandbox.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

#: Seconds of idling that are measured, and the most that starting may take.
WINDOW, START = 20.0, 60.0

#: Triggers started at once, and seconds between: as fast as a triggerer that was
#: restarted might, without its own work.
BATCH, PAUSE = 20, 0.01

#: Seconds between two looks at how long the event loop was blocked.
TICK = 0.005

SIZES = (100, 1000, 10_000)

CHILD = "devtools.benchmarks.waiting"

KINDS = {
    "floor": "Airflow's own share: a trigger that waits",
    "ours": "RunqyOperator, webhook",
    "ours_jobs": "RunqyOperator, webhook, its job observed",
    "ours_s3": "RunqyOperator, s3:// without a receiver",
    "redis": "AwaitMessageTrigger, every 0.5 s",
    "s3": "S3KeyTrigger, every 5 s",
}

#: Of the peers, this many waits are the most that is tried.
MOST_OF_PEER = 1000


class Floor(BaseTrigger):
    """A trigger that waits for something that never comes."""

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path, and no arguments."""
        return f"{CHILD}.Floor", {}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait."""
        await asyncio.get_running_loop().create_future()
        yield TriggerEvent("never")  # type: ignore[no-untyped-call] # Airflow's


def make(kind: str, number: int) -> Any:
    """Return one trigger of a kind."""
    if kind == "floor":
        return Floor()  # type: ignore[no-untyped-call] # Airflow's
    if kind == "redis":
        from airflow.providers.redis.triggers.redis_await_message import (  # noqa: PLC0415 - heavy
            AwaitMessageTrigger,
        )

        return AwaitMessageTrigger(channels=[f"c{number}"], poll_interval=0.5)
    if kind == "s3":
        from airflow.providers.amazon.aws.triggers.s3 import (  # noqa: PLC0415 - heavy
            S3KeyTrigger,
        )

        return S3KeyTrigger(
            bucket_name="results",
            bucket_key=f"waits/{number}",
            aws_conn_id="aws_default",
            poke_interval=5,
        )
    from runqy_provider.triggers.delivery import (  # noqa: PLC0415 - heavy
        DeliveryTrigger,
    )

    return DeliveryTrigger(
        runqy_conn_id=CONN_ID,
        delivery_id=f"w{number}",
        sink="s3://results/waits" if kind == "ours_s3" else "webhook",
        deadline=time.time() + 3600,
        job_id=f"job{number}" if kind == "ours_jobs" else None,
        runqy_queue="idle.default" if kind == "ours_jobs" else None,
    )


def enqueue(waits: int) -> None:
    """Enqueue the jobs that are observed; no worker takes them."""
    from runqy_provider.client.job_options import JobOptions  # noqa: PLC0415 - heavy
    from runqy_provider.client.redis_transport import (  # noqa: PLC0415 - heavy
        NewJob,
        RedisTransport,
    )
    from runqy_provider.context import load_context  # noqa: PLC0415 - heavy

    redis = load_context(CONN_ID).runqy_redis
    if redis is None:
        raise RuntimeError("the connection does not name runqy's own Redis")
    transport = RedisTransport(redis)
    for start in range(0, waits + 1, 1000):
        numbers = range(start, min(start + 1000, waits + 1))
        jobs = [NewJob(f"job{number}", {"n": number}) for number in numbers]
        transport.enqueue("idle.default", jobs, JobOptions())
    transport.close()


def memory() -> float:
    """Return this process's resident memory in KiB."""
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return float(line.split()[1])


def connections() -> int:
    """Return how many TCP connections this process has."""
    sockets = 0
    for each in Path("/proc/self/fd").iterdir():
        try:
            sockets += str(each.readlink()).startswith("socket:")
        except OSError:
            continue  # the one that listed the others
    return sockets


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


async def run_trigger(kind: str, number: int) -> float:
    """Run a trigger as the triggerer does."""
    await greenback.ensure_portal()
    return await first_event(make(kind, number))


async def idle(kind: str, waits: int) -> dict[str, float]:
    """Start the waits, let them idle, and return what that cost."""
    if kind == "ours_jobs":
        enqueue(waits)
    first = asyncio.create_task(run_trigger(kind, 0))
    await asyncio.sleep(2)  # imports and clients are not the price of a wait
    gc.collect()
    before, sockets = memory(), connections()
    blocks = Blocks()
    recorder: asyncio.Task[None] = asyncio.create_task(blocks.record())
    began = time.monotonic()
    tasks = [first]
    for start in range(1, waits + 1, BATCH):
        tasks += [
            asyncio.create_task(run_trigger(kind, number))
            for number in range(start, min(start + BATCH, waits + 1))
        ]
        if time.monotonic() - began > START:
            break
        await asyncio.sleep(PAUSE)
    await asyncio.sleep(3)
    starting = blocks.take()
    recorder.cancel()
    # Without the recorder, which takes more than all our waits.
    cpu, clock = time.process_time(), time.monotonic()
    await asyncio.sleep(WINDOW / 2)
    spent = (time.process_time() - cpu) / (time.monotonic() - clock)
    recorder = asyncio.create_task(blocks.record())
    await asyncio.sleep(WINDOW / 2)
    recorder.cancel()
    for task in tasks:
        if task.done():
            raise RuntimeError(f"a wait of {kind!r} ended") from task.exception()
    started = len(tasks) - 1
    result = {
        "waits": started,
        "kib": (memory() - before) / started,
        "connections": connections() - sockets,
        "cpu": spent * 100,
        "starting": starting,
        "idle": blocks.take(),
    }
    for task in tasks:
        task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.gather(*tasks, return_exceptions=True)
    return result


def main(sizes: list[int]) -> None:
    """Run each kind in a process of its own and print the tables."""
    for waits in sizes:
        print(f"\n{waits} waits\n")
        print(
            f"{'':42} {'waits':>6} {'KiB/wait':>9} {'of it ours':>11} "
            f"{'+ connections':>14} {'% of a core':>12} "
            f"{'longest block, ms: starting':>28} {'idle':>6}"
        )
        _print_rows(waits)


def _print_rows(waits: int) -> None:
    floor = 0.0
    for kind, name in KINDS.items():
        is_peer = not kind.startswith(("ours", "floor"))
        # A Redis of its own: jobs of an earlier row would be looked at, too.
        with Sandbox({"queues": {"idle": {}}}) as sandbox:
            row = _measure(
                sandbox, kind, min(waits, MOST_OF_PEER if is_peer else waits)
            )
        floor = row["kib"] if kind == "floor" else floor
        print(
            f"{name:42} {row['waits']:6.0f} {row['kib']:9.1f} "
            f"{row['kib'] - floor:11.1f} {row['connections']:14.0f} "
            f"{row['cpu']:12.1f} {row['starting']:28.0f} {row['idle']:6.0f}",
            flush=True,
        )


def _measure(sandbox: Sandbox, kind: str, waits: int) -> dict[str, float]:
    chosen = (
        sandbox.connections()
        if kind == "ours_s3"
        else sandbox.connections("http://127.0.0.1:9/runqy", "s" * 32)
    )
    environment = dict(os.environ)
    for conn_id, fields in chosen.items():
        environment[f"AIRFLOW_CONN_{conn_id.upper()}"] = json.dumps(fields)
    done = subprocess.run(
        [sys.executable, "-m", CHILD, "--child", kind, str(waits)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    row: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return row


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(asyncio.run(idle(sys.argv[2], int(sys.argv[3])))))
    else:
        main([int(size) for size in sys.argv[1:]] or list(SIZES))
