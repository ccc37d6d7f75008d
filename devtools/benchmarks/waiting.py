# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""What waiting costs a triggerer: memory, connections, processor, requests.

``python -m devtools.benchmarks.waiting [WAITS]``: each kind of trigger in a process of
its own, WAITS of them, idle for some seconds against the same Redis and S3 endpoint.
Peers in the same run: the redis provider's AwaitMessageTrigger and amazon's
S3KeyTrigger.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from devtools.benchmarks.webhook_latency import CONN_ID, first_event
from runqy_sandbox.sandbox import Sandbox

#: Seconds of idling that are measured, and the most that starting may take.
WINDOW, START = 20.0, 90.0

#: Triggers started a second, as a triggerer does (max_trigger_to_select_per_loop).
BATCH = 50

CHILD = "devtools.benchmarks.waiting"

KINDS = {
    "ours": "RunqyOperator, webhook",
    "ours_s3": "RunqyOperator, s3:// without a receiver",
    "redis": "AwaitMessageTrigger, every 0.5 s",
    "s3": "S3KeyTrigger, every 5 s",
}


def make(kind: str, number: int) -> Any:
    """Return one trigger of a kind."""
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
        sink="webhook" if kind == "ours" else "s3://results/waits",
        deadline=time.time() + 3600,
    )


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


async def idle(kind: str, waits: int) -> dict[str, float]:
    """Start the waits, let them idle, and return what that cost."""
    first = asyncio.create_task(first_event(make(kind, 0)))
    await asyncio.sleep(2)  # imports and clients are not the price of a wait
    before, sockets = memory(), connections()
    began = time.monotonic()
    tasks = [first]
    for start in range(1, waits + 1, BATCH):
        tasks += [
            asyncio.create_task(first_event(make(kind, number)))
            for number in range(start, min(start + BATCH, waits + 1))
        ]
        if time.monotonic() - began > START:
            break
        await asyncio.sleep(1)
    cpu, clock = time.process_time(), time.monotonic()
    worst = 0.0
    while time.monotonic() - clock < WINDOW:
        slept = time.monotonic()
        await asyncio.sleep(0.05)
        worst = max(worst, time.monotonic() - slept - 0.05)
    spent = (time.process_time() - cpu) / (time.monotonic() - clock)
    for task in tasks:
        if task.done():
            raise RuntimeError(f"a wait of {kind!r} ended") from task.exception()
    result = {
        "waits": len(tasks) - 1,
        "kib": (memory() - before) / (len(tasks) - 1),
        "connections": connections() - sockets,
        "cpu": spent * 100,
        "lag": worst * 1000,
    }
    for task in tasks:
        task.cancel()
    return result


def main(waits: int) -> None:
    """Run each kind in a process of its own and print the table."""
    print(f"\n{waits} waits, idle\n")
    print(
        f"{'':42} {'waits':>6} {'KiB/wait':>9} {'+ connections':>14} "
        f"{'% of a core':>12} {'worst lag ms':>13}"
    )
    with Sandbox({"queues": {"idle": {}}}) as sandbox:
        with_webhook = sandbox.connections("http://127.0.0.1:9/runqy", "s" * 32)
        alone = sandbox.connections()
        for kind, name in KINDS.items():
            chosen = alone if kind == "ours_s3" else with_webhook
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
            row = json.loads(done.stdout.splitlines()[-1])
            print(
                f"{name:42} {row['waits']:6.0f} {row['kib']:9.1f} "
                f"{row['connections']:14.0f} {row['cpu']:12.1f} {row['lag']:13.0f}",
                flush=True,
            )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(asyncio.run(idle(sys.argv[2], int(sys.argv[3])))))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 500)
