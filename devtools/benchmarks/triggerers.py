# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The same waits in 1, 2 and 4 triggerers, with 1 and 2 receivers: which ones end.

Each triggerer and each receiver is a process of its own. What must not change is that a
delivery ends the wait that it belongs to, and no other, wherever it is. What may grow
is what the processes and Redis do for a delivery. The floor are bare endpoints and bare
waits.
"""

from __future__ import annotations

import asyncio
import secrets
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from devtools.benchmarks.bare_trigger import REDIS_URL
from devtools.benchmarks.posting import post_all, quantiles
from devtools.benchmarks.process_cost import processor_seconds
from devtools.benchmarks.servers import (
    CONN_ID,
    as_environment,
    port_of,
    running_redis,
    webhook_connections,
)
from devtools.benchmarks.table import Table
from devtools.benchmarks.wait_process import running_waits, wait_while_changing
from devtools.receiver import ALONE, running_receiver
from runqy_provider.inbox import keys
from runqy_sandbox.redis_server import redis_url

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from redis import Redis

    from devtools.benchmarks.wait_process import WaitProcess

WAITS, QUICK_WAITS = 1000, 200

#: Numbers of triggerers and receivers.
SHAPES = ((1, 1), (2, 1), (4, 1), (2, 2), (4, 2))
QUICK_SHAPES = ((1, 1), (2, 2))
BARE_SHAPES, QUICK_BARE_SHAPES = ((1, 1), (4, 1)), ((1, 1),)

#: Deliveries per second, in total.
RATE = 100.0

BARE = (sys.executable, "-m", "devtools.benchmarks.bare_receiver")


@dataclass
class Counts:
    """Which waits were woken.

    Attributes:
        right: Once, by their own delivery, in the process that has them.
        wrong: Events for another delivery, of another process, or once more.
        missing: Waits without an event.
    """

    right: int
    wrong: int
    missing: int


def run(*, quick: bool) -> Iterator[Table]:
    """Measure each shape."""
    table = Table(
        "triggerers",
        "The same waits in several triggerers",
        (
            *("way", "waits", "triggerers", "receivers", "right", "wrong", "missing"),
            *("p50 ms", "p99 ms", "Redis commands", "pub/sub messages"),
            *("triggerers' CPU ms", "receivers' CPU ms", "Redis's CPU ms"),
        ),
        note="The last five columns are per delivery. Commands inside scripts count, "
        "and so do the polls of all waits that come while the deliveries arrive.",
    )
    waits = QUICK_WAITS if quick else WAITS
    for way, kind, command, shapes in (
        ("ours", "ours", ALONE, QUICK_SHAPES if quick else SHAPES),
        ("bare", "bare", BARE, QUICK_BARE_SHAPES if quick else BARE_SHAPES),
    ):
        for shape in shapes:
            table.add(way, waits, *shape, *_measure(kind, command, waits, shape))
            yield table


def _measure(
    kind: str, command: Sequence[str], waits: int, shape: tuple[int, int]
) -> list[Any]:
    """Wake all waits, and return the cells of a row."""
    triggerers, receivers = shape
    secret = secrets.token_hex(16)
    names = [f"w{number}" for number in range(waits)]
    shares = [names[number::triggerers] for number in range(triggerers)]
    with ExitStack() as stack:
        redis = stack.enter_context(running_redis())
        environment = as_environment(webhook_connections(port_of(redis), secret))
        environment[REDIS_URL] = redis_url(port_of(redis))
        named = ("--conn-id", CONN_ID) if command == ALONE else ()
        targets = [
            stack.enter_context(
                running_receiver(
                    environment[REDIS_URL], secret, *named, command=command
                )
            )
            for _ in range(receivers)
        ]
        processes = [
            stack.enter_context(running_waits(kind, share, environment))
            for share in shares
        ]
        for process in processes:
            process.wait_until_ready()
        waiting = [each.process.pid for each in processes]
        receiving = [each.process.pid for each in targets]
        before = _usage(redis, waiting, receiving)
        subscribers = redis.pubsub_numsub(keys.arrivals(CONN_ID))[0][1]
        urls = [each.url for each in targets]
        sent = asyncio.run(post_all(urls, secret, names, RATE))
        wait_while_changing(lambda: sum(len(p.events) for p in processes), waits)
        time.sleep(0.5)  # an event too many would come now
        after = _usage(redis, waiting, receiving)
        counts = count(processes, shares)
        times = [
            event.at - sent[event.name] for each in processes for event in each.events
        ]
    spent = [(now - then) / waits for now, then in zip(after, before, strict=True)]
    latency = quantiles(times)[:2]
    return [*vars(counts).values(), *latency, spent[0], subscribers, *spent[1:]]


def count(processes: Sequence[WaitProcess], shares: Sequence[Sequence[str]]) -> Counts:
    """Count the events of processes, each of which has a share of the waits."""
    right = wrong = 0
    for process, share in zip(processes, shares, strict=True):
        own = set(share)
        for event in process.events:
            if event.name == event.delivery_id and event.name in own:
                own.remove(event.name)
                right += 1
            else:
                wrong += 1
    return Counts(right, wrong, sum(map(len, shares)) - right)


def _usage(redis: Redis, waiting: list[int], receiving: list[int]) -> list[float]:
    """Return commands of Redis, and CPU milliseconds of all processes."""
    commands: dict[str, Any] = redis.info("commandstats")
    info: dict[str, Any] = redis.info()
    return [
        sum(stats["calls"] for stats in commands.values()),
        sum(map(processor_seconds, waiting)) * 1000,
        sum(map(processor_seconds, receiving)) * 1000,
        (info["used_cpu_user"] + info["used_cpu_sys"]) * 1000,
    ]
