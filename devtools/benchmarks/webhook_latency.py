# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""From a webhook's POST to the trigger's event, while many other waits exist.

The waits are in a process of their own, the receiver is another one. The floor is a
bare endpoint (``bare_receiver``) with bare waits (``bare_trigger``), the peer is the
redis provider's AwaitMessageTrigger, to which a message is published. Each figure is
the median of several runs. The first delivery of a run opens connections and compiles
scripts, and is reported apart from the others; so is the longest pause by Python's
garbage collector, which stops the event loop.
"""

from __future__ import annotations

import asyncio
import secrets
import statistics
import sys
import time
from typing import TYPE_CHECKING

from devtools.benchmarks.bare_trigger import REDIS_URL
from devtools.benchmarks.kinds import NAMES
from devtools.benchmarks.posting import post_all, quantiles
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
from runqy_sandbox.redis_server import redis_url

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from redis import Redis

    from devtools.benchmarks.wait_process import WaitProcess

SIZES, QUICK_SIZES = (100, 1000, 10_000), (1000,)

#: Runs of each way and size.
RUNS, QUICK_RUNS = 3, 1

#: Deliveries that are timed, and how many are sent per second.
DELIVERIES, QUICK_DELIVERIES, RATE = 600, 200, 50.0

#: The peer: its kind, its waits, how many are timed, and how many are sent per second.
PEERS = (("redis", 100, 50, 10.0), ("redis", 1000, 50, 10.0))

BARE = (sys.executable, "-m", "devtools.benchmarks.bare_receiver")


def run(*, quick: bool) -> Iterator[Table]:
    """Measure ours and the floor at each size, then the peers."""
    table = Table(
        "webhook_latency",
        "From a webhook's POST to the trigger's event",
        (
            *("way", "other waits", "timed", "p50 ms", "p99 ms", "max ms"),
            *("first ms", "longest GC pause ms"),
        ),
        note="Of fewer than 100 timed ones, the p99 is the longest or nearly so.",
    )
    timed = QUICK_DELIVERIES if quick else DELIVERIES
    runs = range(QUICK_RUNS if quick else RUNS)
    secret = secrets.token_hex(16)
    for command, kind, name in (
        (ALONE, "ours", "webhook -> receiver -> inbox -> our event"),
        (BARE, "bare", "bare: POST -> endpoint -> pub/sub -> future"),
    ):
        for waits in QUICK_SIZES if quick else SIZES:
            rows = [_posted(command, kind, waits, timed, secret) for _ in runs]
            table.add(name, waits, timed, *_medians(rows))
            yield table
    for kind, waits, count, rate in PEERS[:1] if quick else PEERS:
        rows = []
        for _ in runs:
            with running_redis() as redis:
                rows.append(_measure(kind, waits, count, redis, rate))
        table.add(NAMES[kind], waits, count, *_medians(rows))
        yield table


def _medians(rows: Sequence[Sequence[float]]) -> list[float]:
    """Return the median of each column."""
    return [statistics.median(column) for column in zip(*rows, strict=True)]


def _posted(
    command: tuple[str, ...], kind: str, waits: int, timed: int, secret: str
) -> list[float]:
    """Measure one run with a receiver."""
    with (
        running_redis() as redis,
        running_receiver(
            redis_url(port_of(redis)), secret, *_named(command), command=command
        ) as receiver,
    ):
        return _measure(kind, waits, timed, redis, ([receiver.url], secret, RATE))


def _named(command: Sequence[str]) -> tuple[str, ...]:
    return ("--conn-id", CONN_ID) if command == ALONE else ()


def _measure(
    kind: str,
    waits: int,
    timed: int,
    redis: Redis,
    how: tuple[list[str], str, float] | float,
) -> list[float]:
    """Return the figures of one run, in milliseconds.

    They are quantiles of the times from sending to the event, the time of the first
    one, and the longest pause by the garbage collector.

    Args:
        kind: The kind of waits.
        waits: How many others there are, which do not end.
        timed: How many are ended, one after another.
        redis: The Redis of both sides.
        how: Receivers, their secret, and deliveries per second, if they are posted;
            only the last, if they are published.
    """
    idle = [f"idle{number}" for number in range(waits)]
    chosen = [f"timed{number}" for number in range(timed + 1)]  # and the first
    secret = "" if isinstance(how, float) else how[1]
    environment = as_environment(webhook_connections(port_of(redis), secret))
    environment[REDIS_URL] = redis_url(port_of(redis))
    with running_waits(kind, [*idle, *chosen], environment) as process:
        process.wait_until_ready()
        if isinstance(how, float):
            sent = _publish(redis, chosen, how)
        else:
            sent = asyncio.run(post_all(*how[:2], chosen, how[2]))
        wait_while_changing(lambda: len(process.events), len(chosen))
        first, *others = _times(process, sent)
        pause = max(process.pauses, default=0.0)
        return [*quantiles(others), first * 1000, pause * 1000]


def _times(process: WaitProcess, sent: dict[str, float]) -> list[float]:
    missing = set(sent) - {event.name for event in process.events}
    if missing:
        raise RuntimeError(f"{len(missing)} waits have not ended")
    events = sorted(process.events, key=lambda event: sent[event.name])
    return [event.at - sent[event.name] for event in events]


def _publish(redis: Redis, names: list[str], rate: float) -> dict[str, float]:
    sent = {}
    for name in names:
        sent[name] = time.monotonic()
        redis.publish(name, "x" * 200)
        time.sleep(1 / rate)
    return sent
