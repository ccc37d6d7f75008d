# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""From a webhook's POST to the trigger's event, beside the peer and Airflow's share.

Real Redis, the receiver a process of its own, DELIVERIES waits woken one by one among
IDLE others (``python -m devtools.benchmarks.webhook_latency [DELIVERIES] [IDLE]``). The
peer in the same run is the redis provider's AwaitMessageTrigger, at its default poll
interval and at half a second. With ``--airflow``, Airflow's own share is read off a
real one: a triggerer hands events on once a second, then a scheduler and a worker take
over.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import statistics
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
from redis.asyncio import Redis

from devtools.receiver import running_receiver
from runqy_delivery import Delivery
from runqy_provider.inbox import callback_url
from runqy_provider.triggers.delivery import DeliveryTrigger
from runqy_sandbox.process.net import free_port
from runqy_sandbox.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

CONN_ID = "runqy_default"

Timing = tuple[float, float, float]


@contextmanager
def outside_world() -> Iterator[tuple[Sandbox, dict[str, Any]]]:
    """Start Redis and a receiver, and tell Airflow's connections to this process."""
    port, secret = free_port(), secrets.token_hex(16)
    with Sandbox({"queues": {"idle": {}}}) as sandbox:
        url = f"http://127.0.0.1:{port}"
        connections = sandbox.connections(url, secret)
        for conn_id, fields in connections.items():
            os.environ[f"AIRFLOW_CONN_{conn_id.upper()}"] = json.dumps(fields)
        with running_receiver(sandbox.redis_url, secret, port=port):
            yield sandbox, connections[CONN_ID]["extra"]


async def first_event(trigger: Any) -> float:
    """Run a trigger until it fires, and return when."""
    async for _ in trigger.run():
        return time.perf_counter()
    raise AssertionError


async def measure(
    triggers: list[Any], tell: Callable[[int], Awaitable[None]], settle: float
) -> Timing:
    """Start all triggers, tell them one by one, and time the way."""
    waits = [asyncio.create_task(first_event(trigger)) for trigger in triggers]
    await asyncio.sleep(settle)
    times = []
    for number, wait in enumerate(waits):
        started = time.perf_counter()
        await tell(number)
        times.append(await wait - started)
    ordered = sorted(times)
    return (
        statistics.median(ordered) * 1000,
        ordered[int(len(ordered) * 0.99)] * 1000,
        ordered[-1] * 1000,
    )


async def ours(deliveries: int, idle: int, extra: dict[str, Any]) -> Timing:
    """POST to the receiver; our trigger fires."""
    expires = int(time.time()) + 3600

    def trigger(name: str) -> DeliveryTrigger:
        return DeliveryTrigger(
            runqy_conn_id=CONN_ID,
            delivery_id=name,
            sink="webhook",
            deadline=time.time() + 3600,
        )

    waiting = [asyncio.create_task(first_event(trigger(f"i{n}"))) for n in range(idle)]
    async with httpx.AsyncClient() as client:

        async def tell(number: int) -> None:
            url = callback_url.url(
                extra["callback_url"],
                extra["callback_secret"],
                CONN_ID,
                f"d{number}",
                expires,
            )
            body = Delivery(f"d{number}", result={"text": "x" * 200}).to_json()
            (await client.post(url, content=body)).raise_for_status()

        timing = await measure([trigger(f"d{n}") for n in range(deliveries)], tell, 2)
    for wait in waiting:
        wait.cancel()
    return timing


async def peer(deliveries: int, interval: float, redis_url: str) -> Timing:
    """PUBLISH to Redis; the redis provider's trigger fires."""
    from airflow.providers.redis.triggers.redis_await_message import (  # noqa: PLC0415 - heavy
        AwaitMessageTrigger,
    )

    redis = Redis.from_url(redis_url)
    triggers = [
        AwaitMessageTrigger(
            channels=[f"c{interval}-{n}"],
            redis_conn_id="redis_default",
            poll_interval=interval,
        )
        for n in range(deliveries)
    ]

    async def tell(number: int) -> None:
        await redis.publish(f"c{interval}-{number}", "x" * 200)

    timing = await measure(triggers, tell, 2)
    await redis.aclose()
    return timing


def line(name: str, timing: Timing, base: float) -> str:
    """Return a row of the table."""
    ratio = timing[0] / base
    return (
        f"{name:44} {timing[0]:10.1f} {timing[1]:10.1f} {timing[2]:10.1f} {ratio:9.1f}x"
    )


def airflows_share() -> list[float]:
    """Run the fan-out example on a real Airflow: seconds from event to task done."""
    from devtools.airflow import Airflow  # noqa: PLC0415 - only where it is asked for
    from devtools.client import FINISHED, AirflowClient  # noqa: PLC0415 - same

    dags = Path(__file__).resolve().parents[2] / "dags"
    port = free_port()
    with (
        tempfile.TemporaryDirectory() as folder,
        Sandbox(dags / "task_code" / "queues.yaml") as sandbox,
    ):
        url, secret = f"http://127.0.0.1:{port}/runqy", secrets.token_hex(16)
        airflow = Airflow(
            Path(folder), dags, sandbox.connections(url, secret), port=port
        )
        with airflow:
            client = AirflowClient(airflow.url)
            client.wait_for_dags({"runqy_fan_out"})
            run_id = client.trigger("runqy_fan_out")
            end = time.monotonic() + 200
            while client.state("runqy_fan_out", run_id) not in FINISHED:
                if time.monotonic() > end:
                    break
                time.sleep(0.5)
            shares = []
            for ti in client.task_instances("runqy_fan_out", run_id):
                job = client.xcom(ti, "runqy_job")
                if job and ti["end_date"]:
                    shares.append(_share(client.log(ti), ti["end_date"]))
            return [share for share in shares if share is not None]


def _share(log: str, end_date: str) -> float | None:
    import re  # noqa: PLC0415 - only here
    from datetime import datetime  # noqa: PLC0415 - only here

    fired = re.search(r"'timestamp': '([^']+)', 'event': 'Trigger fired event'", log)
    if fired is None:
        return None
    end = datetime.fromisoformat(end_date)
    return (end - datetime.fromisoformat(fired.group(1))).total_seconds()


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("deliveries", type=int, nargs="?", default=200)
    parser.add_argument("idle", type=int, nargs="?", default=1000)
    parser.add_argument("--airflow", action="store_true", help="measure its share, too")
    options = parser.parse_args()
    with outside_world() as (sandbox, extra):
        mine = asyncio.run(ours(options.deliveries, options.idle, extra))
        quick = asyncio.run(peer(20, 0.5, sandbox.redis_url))
        default = asyncio.run(peer(1, 60.0, sandbox.redis_url))
    print(
        f"\n{options.deliveries} webhooks, one at a time, {options.idle} other waits\n"
    )
    print(f"{'':44} {'median ms':>10} {'p99 ms':>10} {'max ms':>10} {'ratio':>10}")
    print(line("webhook -> receiver -> inbox -> our event", mine, mine[0]))
    print(line("PUBLISH -> AwaitMessageTrigger, 0.5 s", quick, mine[0]))
    print(line("PUBLISH -> AwaitMessageTrigger, its default", default, mine[0]))
    if options.airflow:
        shares = [share * 1000 for share in airflows_share()]
        timing = (statistics.median(shares), max(shares), max(shares))
        print(line("Airflow's own share: event -> task done", timing, mine[0]))


if __name__ == "__main__":
    main()
