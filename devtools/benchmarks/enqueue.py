# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""How many jobs are enqueued per second, by transport and by jobs per round trip.

The floors of the transport ``redis`` are the same script, called by bare redis-py in a
pipeline: once with the encoding of the messages, once with messages that were prepared.
That of HTTP are the same requests, sent by bare ``requests``.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import time
import uuid
from typing import TYPE_CHECKING, Any

import requests
from redis import Redis

from devtools.benchmarks.servers import CONN_ID
from devtools.benchmarks.table import Table
from runqy_provider.client import api
from runqy_provider.client.models import JobOptions
from runqy_provider.client.queues import QUEUES, hash_key, pending_key, reverse_key
from runqy_provider.client.redis_transport import (
    _ENQUEUE,
    DEFAULT_TIMEOUT,
    MAX_RETRY,
    NewJob,
    RedisTransport,
    task_message,
)
from runqy_provider.connections import RunqyConnection
from runqy_provider.redis_connection import RedisConnection
from runqy_sandbox.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

QUEUE = "idle.default"
PAYLOAD = {"input": "s3://audio/2030-01-31/" + "x" * 150, "model": "large", "n": 1}

#: By jobs per round trip: how many jobs are enqueued in one measurement.
JOBS = {1: 1000, 100: 10_000, 1000: 10_000}
HTTP_JOBS = {1: 500, 100: 5000, 1000: 10_000}

#: Measurements of each way, alternating; the median counts.
ROUNDS, QUICK_ROUNDS = 5, 3


def run(*, quick: bool) -> Iterator[Table]:
    """Measure each way with each number of jobs per round trip."""
    table = Table(
        "enqueue",
        "Enqueue jobs",
        ("way", "jobs per round trip", "jobs per second", "µs per job", "of the floor"),
        note="*of the floor*: time per job, compared with the bare way that encodes.",
    )
    rounds = QUICK_ROUNDS if quick else ROUNDS
    with Sandbox({"queues": {"idle": {}}}) as sandbox:
        for size, jobs in JOBS.items():
            with contextlib.ExitStack() as stack:
                ways = redis_ways(sandbox.redis_port, stack)
                _compare(table, ways, size, jobs, rounds)
            yield table
        for size, jobs in HTTP_JOBS.items():
            with contextlib.ExitStack() as stack:
                ways = http_ways(sandbox, stack)
                _compare(table, ways, size, jobs // 2 if quick else jobs, rounds)
            yield table


def redis_ways(port: int, stack: contextlib.ExitStack) -> dict[str, Any]:
    """Return by name: what prepares jobs, and what enqueues those in one round trip."""
    redis = stack.enter_context(Redis(port=port))
    options = (("host", "127.0.0.1"), ("port", port))
    ours = stack.enter_context(
        contextlib.closing(
            RedisTransport(
                RedisConnection("redis_default", f"127.0.0.1:{port}", options)
            )
        )
    )
    sha = redis.script_load(_ENQUEUE.text)

    def bare(encoded: Sequence[tuple[Any, ...]]) -> None:
        with redis.pipeline(transaction=False) as pipeline:
            for job in encoded:
                pipeline.evalsha(sha, 4, *job)
            pipeline.execute()

    return {
        "transport redis": (
            _plain,
            lambda jobs: ours.enqueue(QUEUE, jobs, JobOptions()),
        ),
        "bare: EVALSHA, encodes": (_plain, lambda jobs: bare([*map(_encoded, jobs)])),
        "bare: EVALSHA, prepared": (lambda n: [*map(_encoded, _plain(n))], bare),
    }


def http_ways(sandbox: Sandbox, stack: contextlib.ExitStack) -> dict[str, Any]:
    """Return the same for HTTP, where a round trip is a request."""
    connection = RunqyConnection(CONN_ID, sandbox.server_url, sandbox.client_key)
    ours = stack.enter_context(api.open_session(connection))
    session = stack.enter_context(requests.Session())
    headers = {
        "Authorization": f"Bearer {sandbox.client_key}",
        "Content-Type": "application/json",
    }

    def enqueue(jobs: Sequence[NewJob]) -> None:
        payloads = [job.payload for job in jobs]
        if len(payloads) == 1:
            api.send(ours, api.enqueue(QUEUE, payloads[0], None), connection)
        else:
            request = api.enqueue_batch(QUEUE, payloads, None)
            api.send(ours, request, connection)

    def bare(jobs: Sequence[NewJob]) -> None:
        payloads = [job.payload for job in jobs]
        path: str = "/queue/add-batch"
        what: dict[str, Any] = {"jobs": payloads}
        if len(payloads) == 1:
            path, what = "/queue/add", {"data": payloads[0]}
        body = json.dumps({"queue": QUEUE, **what}).encode()
        url = f"{sandbox.server_url}{path}"
        session.post(url, data=body, headers=headers).raise_for_status()

    return {"transport http": (_plain, enqueue), "bare: requests": (_plain, bare)}


def _compare(
    table: Table, ways: dict[str, Any], size: int, jobs: int, rounds: int
) -> None:
    """Measure ways alternately, and add a row for each; the second one is the floor."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, (prepare, enqueue) in ways.items():
            batches = [prepare(size) for _ in range(jobs // size)]
            began = time.perf_counter()
            for batch in batches:
                enqueue(batch)
            times[name].append((time.perf_counter() - began) / jobs)
    medians = {name: statistics.median(each) for name, each in times.items()}
    floor = [*medians.values()][1]
    for name, seconds in medians.items():
        table.add(name, size, int(1 / seconds), seconds * 1e6, seconds / floor)


def _plain(count: int) -> list[NewJob]:
    return [NewJob(str(uuid.uuid4()), PAYLOAD) for _ in range(count)]


def _encoded(job: NewJob) -> tuple[Any, ...]:
    """Return keys and arguments of the script for a job."""
    body = json.dumps(job.payload, separators=(",", ":"), sort_keys=True).encode()
    return (
        hash_key(QUEUE, job.job_id),
        reverse_key(job.job_id),
        pending_key(QUEUE),
        QUEUES,
        task_message(job.job_id, QUEUE, body, DEFAULT_TIMEOUT, MAX_RETRY),
        job.job_id,
        time.time_ns(),
        QUEUE,
    )
