# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The measured figures that the sizing is computed from, each with its source.

They are those of one full run on two cores. After another run, change them here, and
the output that ``docs/operations.md`` quotes.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """A figure, as it was measured.

    Attributes:
        value: The figure.
        unit: Its unit.
        benchmark: The benchmark that measures it.
        where: Row and column of its table.
    """

    value: float
    unit: str
    benchmark: str
    where: str


WAIT_MEMORY = Figure(
    11.8, "KiB", "waiting", "webhook, its job observed, 10,000 waits: KiB per wait"
)
TRIGGERER_MEMORY = Figure(
    481, "MiB", "delivered_to_done", "triggerer: MiB, without many waits"
)
TRIGGER_STARTS = Figure(
    446, "triggers/s", "triggerer_start", "ours, 1,000 triggers: triggers a second"
)
WAKE_CPU = Figure(
    1.42, "ms", "triggerers", "ours, 1 triggerer, 1 receiver: triggerers' CPU"
)
MESSAGE_CPU = Figure(
    0.57, "ms", "triggerers", "what each further triggerer adds to that"
)
RECEIVER_RATE = Figure(
    5407, "deliveries/s", "receiver_load", "our receiver, 32 connections: a second"
)
REDIS_CPU = Figure(0.31, "ms", "triggerers", "ours, 4 triggerers: Redis's CPU")
DELIVERY_MEMORY = Figure(
    1075, "bytes", "inbox_memory", "our inbox, 10,000: memory without the body"
)
DIGEST_MEMORY = Figure(
    167, "bytes", "inbox_memory", "our inbox, 10,000: when it has expired"
)
DELIVERY_APPENDED = Figure(
    1015, "bytes", "inbox_memory", "our inbox, 10,000: append-only file without body"
)
OBJECT_PUTS = Figure(1, "requests", "sinks", "s3://, with a receiver: PUTs per job")
OBJECT_READS = Figure(
    2.42, "requests", "sinks", "s3://, with a receiver: GETs and HEADs per job"
)
HTTP_ENQUEUE = Figure(885, "µs", "enqueue", "transport http: µs per job")
REDIS_ENQUEUE = Figure(165, "µs", "enqueue", "transport redis, 1 per round trip")
SLOT_TIME = Figure(
    5.82, "s", "delivered_to_done", "ours, webhook: slot-seconds per task"
)
SLOT_CPU = Figure(
    1.10, "s", "delivered_to_done", "ours, webhook: CPU s per task, scheduler included"
)

FIGURES = [value for value in vars().values() if isinstance(value, Figure)]
