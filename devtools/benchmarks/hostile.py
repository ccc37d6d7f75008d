# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Hostile requests to a receiver, and honest deliveries that come meanwhile.

``python -m devtools.benchmarks.hostile [REQUESTS]``: forged, expired, foreign and
oversized requests, and some that are no HTTP at all, over 32 connections to a receiver
process on a real Redis; beside them, honest deliveries, one after another. Prints the
answers, what was stored, the receiver's memory before and after, and how long the
honest ones took, with and without the hostile ones.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
import statistics
import sys
import time
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

import httpx
from redis import Redis

from devtools.receiver import running_receiver
from runqy_provider.inbox import callback_url, keys
from runqy_sandbox.process.net import free_port
from runqy_sandbox.sandbox import Sandbox

CONNECTIONS = 32
CONN_ID = "hostile"

#: MiB by which the receiver's memory may have grown.
MOST_GROWTH = 48.0

#: Seconds between two honest deliveries.
PAUSE = 0.05


def memory(pid: int) -> float:
    """Return a process's resident memory in MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return float(line.split()[1]) / 1024


def hostile_requests(url: str, secret: str) -> list[bytes]:
    """Return requests of many kinds, none of which may store anything."""
    now = int(time.time())

    def post(address: str, body: bytes, *headers: str) -> bytes:
        parts = urlsplit(address)
        lines = [f"POST {parts.path}?{parts.query} HTTP/1.1", "Host: r"]
        lines += [f"Content-Length: {len(body)}", *headers, "", ""]
        return "\r\n".join(lines).encode() + body

    def at(delivery_id: str = "d", until: int = 600, key: str = secret) -> str:
        return callback_url.url(url, key, CONN_ID, delivery_id, now + until)

    good, huge = b'{"task_id": "d", "result": 1}', b"1" * 401
    return [
        post(at(key=secrets.token_hex(16)), good),
        post(at(until=-1), good),
        post(at("another").replace("/another?", "/d?"), good),
        post(at().replace(CONN_ID, "elsewhere"), good),
        post(at()[:-1], good),
        post(at().partition("?")[0], good),
        post(at(), b"not json"),
        post(at(), b'{"task_id": "other", "result": 1}'),
        post(at(), b'{"task_id": "d", "result": ' + b"[" * 900),
        post(at(), b"\xff" * 2000),
        post(at(), b'{"task_id": "d", "status": "progress", "fraction": %s}' % huge),
        post(at(), b'{"task_id": "d", "result": [' + b"{}," * 2000 + b"NaN]}"),
        post(at()[:-1], good, *(f"X-{n}: {'x' * 500}" for n in range(200))),
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
            writer.write(requests[turn % len(requests)])
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
            fields = head.lower().split(b"\r\n")
            length = next(
                (f for f in fields if f.startswith(b"content-length:")), b":0"
            )
            await reader.readexactly(int(length.split(b":")[1]))
            answers[head.split()[1].decode()] += 1
            closes = b"connection: close" in fields or head.split()[1] == b"413"
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


async def measure(port: int, secret: str, total: int) -> None:
    """Run it all, and print what came of it."""
    url = f"http://127.0.0.1:{port}"
    requests = hostile_requests(url, secret)
    alone = asyncio.Event()
    asyncio.get_running_loop().call_later(5, alone.set)
    quiet = await honest(url, secret, alone)
    done = asyncio.Event()
    deliveries = asyncio.create_task(honest(url, secret, done))
    turns, began = itertools.count(), time.monotonic()
    counted = await asyncio.gather(
        *(attack(port, requests, turns, total) for _ in range(CONNECTIONS))
    )
    seconds = time.monotonic() - began
    done.set()
    times = await deliveries
    answers = sum(counted, Counter[str]())
    print(f"\n{total:,} hostile requests in {seconds:.0f} s: {dict(answers)}")
    errors = sum(n for status, n in answers.items() if status.startswith("5"))
    print(f"answers of 500 and above: {errors}")
    for name, taken in (("alone", quiet), ("meanwhile", times)):
        cuts = statistics.quantiles(taken, n=100)
        print(
            f"honest deliveries {name}: {len(taken)}, median {cuts[49] * 1000:.1f} ms, "
            f"p99 {cuts[98] * 1000:.1f} ms"
        )
    if errors:
        raise SystemExit(1)


def main(total: int = 100_000) -> None:
    """Start Redis and a receiver, and attack it."""
    secret = secrets.token_hex(16)
    with Sandbox({"queues": {"none": {"priority": 1}}}) as sandbox:
        port = free_port()
        named = ("--conn-id", CONN_ID)
        with running_receiver(sandbox.redis_url, secret, *named, port=port) as receiver:
            before = memory(receiver.process.pid)
            asyncio.run(measure(port, secret, total))
            after = memory(receiver.process.pid)
            with Redis.from_url(sandbox.redis_url) as redis:
                stored = redis.keys(f"{keys.PREFIX}:{CONN_ID}:*")
            wrong = [key for key in stored if b"honest-" not in key]
            print(f"stored by hostile requests: {len(wrong)} keys")
            print(f"the receiver's memory: {before:.0f} MiB, then {after:.0f} MiB")
            if wrong or after - before > MOST_GROWTH:
                raise SystemExit(1)


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:2]))
