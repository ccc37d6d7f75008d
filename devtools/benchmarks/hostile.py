# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Hostile requests to a receiver, and honest deliveries that come meanwhile.

Forged, expired, foreign and oversized requests, and some that are no HTTP at all, come
over 32 connections to a receiver process on a real Redis; beside them, honest
deliveries, one after another. It fails where a hostile request was stored, an answer
was an error of the server, or the receiver's memory has grown.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
import time
from collections import Counter
from typing import TYPE_CHECKING

import httpx
from redis import Redis

from devtools.benchmarks.posting import quantiles
from devtools.benchmarks.process_cost import memory
from devtools.benchmarks.raw_http import exchange, post_request
from devtools.benchmarks.table import Table
from devtools.receiver import running_receiver
from runqy_provider.inbox import callback_url, keys
from runqy_sandbox.process.net import free_port
from runqy_sandbox.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Hostile requests, and how many connections they come over.
REQUESTS, QUICK_REQUESTS, CONNECTIONS = 100_000, 10_000, 32
CONN_ID = "hostile"

#: MiB by which the receiver's memory may have grown.
MOST_GROWTH = 48.0

#: Seconds between two honest deliveries.
PAUSE = 0.05


def hostile_requests(url: str, secret: str) -> list[bytes]:
    """Return requests of many kinds, none of which may store anything."""
    now = int(time.time())

    def at(delivery_id: str = "d", until: int = 600, key: str = secret) -> str:
        return callback_url.url(url, key, CONN_ID, delivery_id, now + until)

    good, huge = b'{"task_id": "d", "result": 1}', b"1" * 401
    return [
        post_request(at(key=secrets.token_hex(16)), good),
        post_request(at(until=-1), good),
        post_request(at("another").replace("/another?", "/d?"), good),
        post_request(at().replace(CONN_ID, "elsewhere"), good),
        post_request(at()[:-1], good),
        post_request(at().partition("?")[0], good),
        post_request(at(), b"not json"),
        post_request(at(), b'{"task_id": "other", "result": 1}'),
        post_request(at(), b'{"task_id": "d", "result": ' + b"[" * 900),
        post_request(at(), b"\xff" * 2000),
        post_request(
            at(), b'{"task_id": "d", "status": "progress", "fraction": %s}' % huge
        ),
        post_request(at(), b'{"task_id": "d", "result": [' + b"{}," * 2000 + b"NaN]}"),
        post_request(at()[:-1], good, *(f"X-{n}: {'x' * 500}" for n in range(200))),
        b"POST " + at().encode() + b" HTTP/1.1\r\nHost: r\r\n"
        b"Content-Length: 99999999999\r\n\r\n",
        b"GET /" + b"a" * 3000 + b" HTTP/1.1\r\nHost: r\r\n\r\n",
        b"\x16\x03\x01 no http at all \r\n\r\n",
    ]


async def attack(
    port: int, requests: list[bytes], turns: itertools.count[int], total: int
) -> Counter[str]:
    """Send hostile requests over one connection after another."""
    answers: Counter[str] = Counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    closes = False
    while (turn := next(turns)) < total:
        if closes:
            writer.close()
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            answer = await exchange(reader, writer, requests[turn % len(requests)])
            answers[str(answer.status)] += 1
            closes = answer.closes or answer.status == 413
        except (asyncio.IncompleteReadError, ConnectionError):
            answers["hung up"] += 1
            closes = True
    writer.close()
    return answers


async def honest(url: str, secret: str, done: asyncio.Event) -> list[float]:
    """Deliver at intervals until the end; return how long each delivery took."""
    times: list[float] = []
    async with httpx.AsyncClient() as client:
        for number in itertools.count():
            if done.is_set():
                return times
            delivery_id = f"honest-{number}-{secrets.token_hex(4)}"
            until = int(time.time()) + 600
            address = callback_url.url(url, secret, CONN_ID, delivery_id, until)
            began = time.perf_counter()
            answer = await client.post(
                address, json={"task_id": delivery_id, "result": number}
            )
            answer.raise_for_status()
            times.append(time.perf_counter() - began)
            await asyncio.sleep(PAUSE)
    raise AssertionError


async def measure(
    port: int, secret: str, total: int
) -> tuple[Counter[str], list[float], list[float]]:
    """Return the answers, and what honest deliveries took alone, and meanwhile."""
    url = f"http://127.0.0.1:{port}"
    requests = hostile_requests(url, secret)
    alone = asyncio.Event()
    asyncio.get_running_loop().call_later(5, alone.set)
    quiet = await honest(url, secret, alone)
    done = asyncio.Event()
    deliveries = asyncio.create_task(honest(url, secret, done))
    turns = itertools.count()
    counted = await asyncio.gather(
        *(attack(port, requests, turns, total) for _ in range(CONNECTIONS))
    )
    done.set()
    return sum(counted, Counter[str]()), quiet, await deliveries


def run(*, quick: bool) -> Iterator[Table]:
    """Start Redis and a receiver, and attack it."""
    secret, total = secrets.token_hex(16), QUICK_REQUESTS if quick else REQUESTS
    with Sandbox({"queues": {"none": {"priority": 1}}}) as sandbox:
        port = free_port()
        named = ("--conn-id", CONN_ID)
        with running_receiver(sandbox.redis_url, secret, *named, port=port) as receiver:
            before = memory(receiver.process.pid) / 1024
            answers, quiet, times = asyncio.run(measure(port, secret, total))
            after = memory(receiver.process.pid) / 1024
            with Redis.from_url(sandbox.redis_url) as redis:
                stored = redis.keys(f"{keys.PREFIX}:{CONN_ID}:*")
    # Records of the last rejections are kept, up to a limit.
    records = {
        keys.accepted(CONN_ID).encode(),
        keys.rejected(CONN_ID).encode(),
        keys.bad_url(CONN_ID).encode(),
    }
    wrong = sum(b"honest-" not in key for key in set(stored) - records)
    errors = sum(n for status, n in answers.items() if status.startswith("5"))
    table = Table(
        "hostile",
        f"{total:,} hostile requests: {dict(answers)}",
        (
            *("honest deliveries", "count", "median ms", "p99 ms", "max ms"),
            *("stored by hostile ones", "answers of 500 and above", "receiver's MiB"),
        ),
    )
    table.add("alone", len(quiet), *quantiles(quiet), None, None, before)
    table.add("meanwhile", len(times), *quantiles(times), wrong, errors, after)
    yield table
    if wrong or errors or after - before > MOST_GROWTH:
        raise SystemExit(1)
