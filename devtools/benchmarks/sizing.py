# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The size of a deployment: from its load and the measured figures."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from devtools.benchmarks import measured
from runqy_provider.hooks.delivery_fields import LATE_DELIVERY
from runqy_provider.inbox import keys
from runqy_provider.operators.runqy import DELIVERY_TIMEOUT
from runqy_provider.options import Config
from runqy_provider.sinks.object_store.sink import WEBHOOK_INTERVAL_FACTOR

DAY = 86_400

#: A process is planned with so much of what it can do: half of it, for peaks in a peak.
PLANNED = 0.5

#: Bytes of a delivery that only says where an object is.
ANNOUNCEMENT = 300

#: More triggerers are not tried.
MOST = 100

#: Keys on a page of a listing.
PAGE = 1000

#: Seconds between two listings, where webhooks announce objects.
LISTING_INTERVAL = Config.object_sweep_seconds * WEBHOOK_INTERVAL_FACTOR


def _input(default: float, explanation: str) -> float:
    value: float = field(default=default, metadata={"help": explanation})
    return value


@dataclass(frozen=True)
class Load:
    """What a deployment has to do; the help of each field says what it is."""

    jobs_per_day: float = _input(1_000_000, "jobs a day")
    peak_factor: float = _input(3, "jobs a second at the peak, divided by the mean")
    job_seconds: float = _input(60, "mean seconds from enqueue to delivery")
    result_kib: float = _input(2, "mean KiB of a result that a webhook brings")
    webhook_share: float = _input(0.9, "share of jobs with the sink webhook")
    object_share: float = _input(0.1, "share of jobs with an object store as sink")
    folder_objects: float = _input(1000, "objects in a folder that is listed")
    folders: float = _input(10, "folders that are waited for at a time")
    unread_share: float = _input(0.001, "share of deliveries that are never read")
    unread_days: float = _input(
        Config.unread_ttl_seconds / DAY, "days that these are kept"
    )
    airflows: float = _input(1, "Airflows among which the jobs are divided")
    capacity: float = _input(10_000, "[triggerer] capacity")
    list_price: float = _input(0.005, "dollars for 1,000 LIST requests")
    put_price: float = _input(0.005, "dollars for 1,000 PUT requests")
    get_price: float = _input(0.0004, "dollars for 1,000 GET or HEAD requests")


@dataclass(frozen=True)
class Size:
    """What a deployment needs, all Airflows together; sizes are in bytes."""

    jobs_per_second: float
    deliveries_per_second: float
    waits: int
    triggerers: int
    triggerer_memory: float
    triggerer_cpu: float
    receivers: int
    redis_memory: float
    redis_appended_per_second: float
    redis_appended_per_day: float
    redis_cpu: float
    puts: float
    reads: float
    lists: float
    dollars_per_month: float
    slots: int
    slot_cores: int
    http_clients: float
    redis_clients: float


def size_of(load: Load) -> Size:
    """Compute what a load needs at its peak; requests are those of a day."""
    mean = load.jobs_per_day / DAY
    peak = mean * load.peak_factor
    delivered = load.webhook_share + load.object_share
    deliveries = peak * delivered
    waits = math.ceil(peak * load.job_seconds)
    each = load.airflows
    alone = _triggerers(peak / each, deliveries / each, waits / each / load.capacity)
    triggerers = each * (alone + 1)
    busy = deliveries / each / (measured.RECEIVER_RATE.value * PLANNED)
    lists = _lists(load) * triggerers
    puts = load.jobs_per_day * load.object_share * measured.OBJECT_PUTS.value
    reads = load.jobs_per_day * load.object_share * measured.OBJECT_READS.value
    price = lists * load.list_price + puts * load.put_price + reads * load.get_price
    appended = measured.DELIVERY_APPENDED.value * delivered + _body(load)
    return Size(
        jobs_per_second=peak,
        deliveries_per_second=deliveries,
        waits=waits,
        triggerers=round(triggerers),
        triggerer_memory=measured.TRIGGERER_MEMORY.value * 2**20
        # Those that are left when one has failed have all waits.
        + waits / each / alone * measured.WAIT_MEMORY.value * 1024,
        triggerer_cpu=_cpu(deliveries / each, alone),
        receivers=round(each * (math.ceil(busy) + 1)),
        redis_memory=_redis_memory(load, peak),
        redis_appended_per_second=peak * appended,
        redis_appended_per_day=load.jobs_per_day * appended,
        redis_cpu=deliveries * measured.REDIS_CPU.value / 1000,
        puts=puts,
        reads=reads,
        lists=lists,
        dollars_per_month=price / 1000 * 30,
        slots=math.ceil(peak * measured.SLOT_TIME.value),
        slot_cores=math.ceil(peak * measured.SLOT_CPU.value),
        http_clients=peak * measured.HTTP_ENQUEUE.value / 1e6,
        redis_clients=peak * measured.REDIS_ENQUEUE.value / 1e6,
    )


def _triggerers(starts: float, deliveries: float, full: float) -> int:
    """Return how many triggerers one Airflow needs while none has failed.

    Args:
        starts: Triggers that start a second.
        deliveries: Deliveries that come a second.
        full: How many triggerers the waits would fill.
    """
    by_starts = starts / (measured.TRIGGER_STARTS.value * PLANNED)
    least = math.ceil(max(1, full, by_starts))
    # Each hears of every delivery, so that more of them may not help.
    enough = (n for n in range(least, MOST) if _cpu(deliveries, n) <= PLANNED)
    return next(enough, max(least, MOST))


def _cpu(deliveries: float, triggerers: float) -> float:
    """Return the share of a core that a triggerer needs."""
    own = measured.WAKE_CPU.value / triggerers
    others = measured.MESSAGE_CPU.value * (triggerers - 1) / triggerers
    return deliveries * (own + others) / 1000


def _body(load: Load) -> float:
    """Return the mean bytes that a job brings to the inbox."""
    webhooks = load.webhook_share * load.result_kib * 1024
    return webhooks + load.object_share * ANNOUNCEMENT


def _redis_memory(load: Load, peak: float) -> float:
    """Return the bytes of deliveries that were read, that were not, and of digests."""
    delivered = load.webhook_share + load.object_share
    each = _body(load) + delivered * measured.DELIVERY_MEMORY.value
    read = peak * keys.READ_TTL * each
    unread = load.jobs_per_day * load.unread_share * load.unread_days * each
    days = (DELIVERY_TIMEOUT.total_seconds() + LATE_DELIVERY) / DAY
    digests = load.jobs_per_day * delivered * days * measured.DIGEST_MEMORY.value
    return read + unread + digests


def _lists(load: Load) -> float:
    """Return the LIST requests of one triggerer a day."""
    if not load.object_share:
        return 0.0
    pages = math.ceil(load.folder_objects / PAGE)
    return DAY / LISTING_INTERVAL * load.folders * pages
