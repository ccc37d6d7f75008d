# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The size of a deployment for a load: ``python -m devtools.benchmarks.model``.

It follows from the load and from what one full run of the benchmarks measured on two
cores. After another run, change these figures, and the output that
``docs/operations.md`` quotes. Each field of ``Load`` is an option.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass, field, fields

from runqy_provider.config import Config
from runqy_provider.inbox import keys
from runqy_provider.operators._task import DELIVERY_TIMEOUT
from runqy_provider.sinks.base import LATE_DELIVERY
from runqy_provider.sinks.object_store.object_sink import WEBHOOK_INTERVAL_FACTOR

# What was measured, with the benchmark, and the row and column of its table.

#: KiB of a wait. waiting: webhook, its job observed, 10,000 waits: KiB per wait.
WAIT_MEMORY = 11.8
#: MiB of a triggerer without many waits. delivered_to_done: triggerer: MiB.
TRIGGERER_MEMORY = 481
#: Triggers that start per second. triggerer_start: ours, 1,000 triggers.
TRIGGER_STARTS = 446
#: Milliseconds of a delivery. triggerers: ours, 1 triggerer, 1 receiver: CPU.
WAKE_CPU = 1.42
#: Milliseconds that each further triggerer adds to that.
MESSAGE_CPU = 0.57
#: Deliveries per second. receiver_load: our receiver, 32 connections.
RECEIVER_RATE = 5407
#: Milliseconds of a delivery. triggerers: ours, 4 triggerers: Redis's CPU.
REDIS_CPU = 0.31
#: Bytes of a delivery. inbox_memory: our inbox, 10,000: memory without the body.
DELIVERY_MEMORY = 1075
#: Bytes of a digest. inbox_memory: our inbox, 10,000: when it has expired.
DIGEST_MEMORY = 167
#: Bytes of a delivery. inbox_memory: our inbox: append-only file without the body.
DELIVERY_APPENDED = 1015
#: Requests of a job. sinks: s3://, with a receiver: PUTs, and GETs and HEADs.
OBJECT_PUTS, OBJECT_READS = 1, 2.42
#: Microseconds of a job. enqueue: transport http; redis, 1 per round trip.
HTTP_ENQUEUE, REDIS_ENQUEUE = 885, 165
#: Seconds of a task. delivered_to_done: ours, webhook: slot-seconds; CPU, with the
#: scheduler's.
SLOT_TIME, SLOT_CPU = 5.82, 1.10

DAY = 86_400

#: Share of its capacity that a process is planned with: half, for short peaks.
PLANNED = 0.5

#: Bytes of a delivery that only says where an object is.
ANNOUNCEMENT = 300

#: More triggerers are not tried.
MOST = 100

#: Keys on a page of a listing.
PAGE = 1000

#: Seconds between two listings, if webhooks announce objects.
LISTING_INTERVAL = Config().object_sweep_seconds * WEBHOOK_INTERVAL_FACTOR


def _input(default: float, explanation: str) -> float:
    value: float = field(default=default, metadata={"help": explanation})
    return value


@dataclass(frozen=True)
class Load:
    """The load of a deployment; the help of each field describes it."""

    jobs_per_day: float = _input(1_000_000, "jobs per day")
    peak_factor: float = _input(3, "jobs per second at the peak, divided by the mean")
    job_seconds: float = _input(60, "mean seconds from enqueue to delivery")
    result_kib: float = _input(2, "mean KiB of a result that a webhook brings")
    webhook_share: float = _input(0.9, "share of jobs with the sink webhook")
    object_share: float = _input(0.1, "share of jobs with an object store as sink")
    folder_objects: float = _input(1000, "objects in a folder that is listed")
    folders: float = _input(10, "folders that are waited for at a time")
    unread_share: float = _input(0.001, "share of deliveries that are never read")
    unread_days: float = _input(
        Config().unread_ttl_seconds / DAY, "days that these are kept"
    )
    airflows: float = _input(1, "Airflows among which the jobs are divided")
    capacity: float = _input(10_000, "[triggerer] capacity")
    list_price: float = _input(0.005, "dollars for 1,000 LIST requests")
    put_price: float = _input(0.005, "dollars for 1,000 PUT requests")
    get_price: float = _input(0.0004, "dollars for 1,000 GET or HEAD requests")


def size_of(load: Load) -> dict[str, str]:
    """Return what a load needs at its peak, for all Airflows together, as text."""
    peak = load.jobs_per_day / DAY * load.peak_factor
    delivered = load.webhook_share + load.object_share
    deliveries = peak * delivered
    waits = math.ceil(peak * load.job_seconds)
    each = load.airflows
    alone = _triggerers(peak / each, deliveries / each, waits / each / load.capacity)
    # One more of each may fail. Those that are left then have all waits.
    triggerers = round(each * (alone + 1))
    memory = TRIGGERER_MEMORY * 2**20 + waits / each / alone * WAIT_MEMORY * 1024
    receivers = math.ceil(deliveries / each / (RECEIVER_RATE * PLANNED)) + 1
    objects = load.jobs_per_day * load.object_share
    puts, reads = objects * OBJECT_PUTS, objects * OBJECT_READS
    pages = math.ceil(load.folder_objects / PAGE) if load.object_share else 0
    lists = DAY / LISTING_INTERVAL * load.folders * pages * triggerers
    price = lists * load.list_price + puts * load.put_price + reads * load.get_price
    appended = DELIVERY_APPENDED * delivered + _body(load)
    return {
        "load at the peak": f"{peak:.1f} jobs/s, {deliveries:.1f} deliveries/s, "
        f"{waits:,} waits at once",
        "worker slots": f"{math.ceil(peak * SLOT_TIME):,} (LocalExecutor, or all "
        f"Celery workers), {math.ceil(peak * SLOT_CPU)} cores",
        "triggerers": f"{triggerers}, each with {_bytes(memory)} and "
        f"{_cpu(deliveries / each, alone):.0%} of a core; one may fail",
        "receivers": f"{round(each * receivers)}; one may fail",
        "Redis": f"{_bytes(_redis_memory(load, peak))} of memory, "
        f"{deliveries * REDIS_CPU / 1000:.0%} of a core",
        "append-only file": f"{_bytes(peak * appended)}/s at the peak, "
        f"{_bytes(load.jobs_per_day * appended)} per day",
        "object store, per day": f"{puts:,.0f} PUT, {reads:,.0f} GET or HEAD, "
        f"{lists:,.0f} LIST",
        "object store, per month": f"${price / 1000 * 30:,.2f} for requests",
        "enqueue": f"{peak:.1f} jobs/s: {peak * HTTP_ENQUEUE / 1e6:.1%} of what one "
        f"HTTP client can, {peak * REDIS_ENQUEUE / 1e6:.1%} by Redis",
    }


def _triggerers(starts: float, deliveries: float, full: float) -> int:
    """Return how many triggerers one Airflow needs while none has failed.

    Args:
        starts: Triggers that start per second.
        deliveries: Deliveries that come per second.
        full: How many triggerers the waits would fill.
    """
    least = math.ceil(max(1, full, starts / (TRIGGER_STARTS * PLANNED)))
    # Every triggerer receives every notification, so more of them may not help.
    enough = (n for n in range(least, MOST) if _cpu(deliveries, n) <= PLANNED)
    return next(enough, max(least, MOST))


def _cpu(deliveries: float, triggerers: float) -> float:
    """Return the share of a core that a triggerer needs."""
    others = MESSAGE_CPU * (triggerers - 1)
    return deliveries * (WAKE_CPU + others) / triggerers / 1000


def _body(load: Load) -> float:
    """Return the mean bytes that a job brings to the inbox."""
    webhooks = load.webhook_share * load.result_kib * 1024
    return webhooks + load.object_share * ANNOUNCEMENT


def _redis_memory(load: Load, peak: float) -> float:
    """Return the bytes of deliveries that were read, that were not, and of digests."""
    delivered = load.webhook_share + load.object_share
    each = _body(load) + delivered * DELIVERY_MEMORY
    read = peak * keys.READ_TTL * each
    unread = load.jobs_per_day * load.unread_share * load.unread_days * each
    days = (DELIVERY_TIMEOUT.total_seconds() + LATE_DELIVERY) / DAY
    return read + unread + load.jobs_per_day * delivered * days * DIGEST_MEMORY


def _bytes(count: float) -> str:
    for size, unit in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count:.0f} bytes"


def main(arguments: list[str] | None = None) -> None:
    """Print the size for the load that the command line describes."""
    parser = argparse.ArgumentParser(description=__doc__)
    for each in fields(Load):
        option = f"--{each.name.replace('_', '-')}"
        text = f"{each.metadata['help']} (default: %(default)s)"
        parser.add_argument(option, type=float, default=each.default, help=text)
    rows = size_of(Load(**vars(parser.parse_args(arguments))))
    width = max(map(len, rows))
    for name, text in rows.items():
        print(f"{name:{width}}  {text}")


if __name__ == "__main__":
    main()
