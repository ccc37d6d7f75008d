# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""How many deliveries one receiver stores per second, compared with a bare endpoint.

wrk posts deliveries, each with a valid URL of its own, over 16, 32 and 64 connections;
the receiver, Redis and wrk share the machine. The bare endpoint (``bare_receiver``)
does the same writes, and nothing else. What both have stored is counted in Redis.
"""

from __future__ import annotations

import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from devtools.benchmarks.servers import port_of, running_redis
from devtools.benchmarks.table import Table
from devtools.receiver import ALONE, running_receiver
from runqy_delivery import Delivery
from runqy_provider.inbox import callback_url
from runqy_sandbox.redis_server import redis_url

if TYPE_CHECKING:
    from collections.abc import Iterator

    from redis import Redis

CONN_ID = "load"

#: Connections of wrk, and seconds of load.
CONNECTIONS, QUICK_CONNECTIONS = (16, 32, 64), (32,)
SECONDS, QUICK_SECONDS = 6, 4

#: Deliveries per second that are prepared: more than any receiver here accepts.
MOST_PER_SECOND = 12_000

BARE = (sys.executable, "-m", "devtools.benchmarks.bare_receiver")

# Every thread of wrk reads all requests, and there is one thread.
SCRIPT = """
local paths, bodies, next = {}, {}, 0
for line in io.lines("%s") do
  local path, body = line:match("([^\\t]+)\\t(.*)")
  paths[#paths + 1], bodies[#bodies + 1] = path, body
end
function request()
  next = next %% #paths + 1
  return wrk.format("POST", paths[next], nil, bodies[next])
end
local refused = 0
function response(status) if status ~= 200 then refused = refused + 1 end end
function done(summary, latency)
  io.write(string.format("RESULT %%f %%f %%f %%d\\n",
    summary.requests / summary.duration * 1e6, latency:percentile(50) / 1000,
    latency:percentile(99) / 1000, summary.errors.status + summary.errors.timeout))
end
"""


@dataclass(frozen=True)
class Load:
    """The outcome of a load.

    Attributes:
        rate: Requests per second.
        median: Of the times to the answer, in milliseconds.
        p99: 99 of 100 were shorter.
        errors: Requests that were refused, or got no answer.
        stored: Deliveries that Redis has.
    """

    rate: float
    median: float
    p99: float
    errors: int
    stored: int


def requests_of(run: str, secret: str, count: int) -> str:
    """Return lines of paths and bodies, each with a valid token."""
    expires = int(time.time()) + 3600
    lines = []
    for number in range(count):
        delivery_id = f"{run}-{number}"
        path = callback_url.url("", secret, CONN_ID, delivery_id, expires)
        body = Delivery(delivery_id, result={"text": "x" * 200}).to_json().decode()
        lines.append(f"{path}\t{body}\n")
    return "".join(lines)


def load(url: str, script: Path, connections: int, seconds: int) -> list[float]:
    """Let wrk post for some seconds, and return what it measured."""
    done = subprocess.run(
        ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(script), url],  # noqa: S607 - found on the PATH
        capture_output=True,
        text=True,
        check=True,
    )
    found = re.search(r"RESULT (.*)", done.stdout)
    if found is None:
        raise RuntimeError(done.stdout)
    return [float(number) for number in found[1].split()]


def measure(
    command: tuple[str, ...], redis: Redis, connections: int, seconds: int
) -> Load:
    """Measure a receiver that is started for it, after a short warm-up."""
    secret, run = secrets.token_hex(16), secrets.token_hex(4)
    arguments = ("--conn-id", CONN_ID) if command == ALONE else ()
    with (
        tempfile.TemporaryDirectory() as folder,
        running_receiver(
            redis_url(port_of(redis)), secret, *arguments, command=command
        ) as receiver,
    ):
        script, lines = Path(folder) / "load.lua", Path(folder) / "requests"
        script.write_text(SCRIPT % lines)
        lines.write_text(requests_of(f"{run}-warm", secret, MOST_PER_SECOND))
        load(receiver.url, script, connections, 1)
        lines.write_text(requests_of(run, secret, MOST_PER_SECOND * seconds))
        warm = sum(1 for _ in redis.scan_iter(f"*:delivery:{run}-*", count=10_000))
        rate, median, p99, errors = load(receiver.url, script, connections, seconds)
        stored = sum(1 for _ in redis.scan_iter(f"*:delivery:{run}-*", count=10_000))
        return Load(rate, median, p99, int(errors), stored - warm)


def run(*, quick: bool) -> Iterator[Table]:
    """Measure both with each number of connections."""
    table = Table(
        "receiver_load",
        "Deliveries to one receiver",
        (
            *("way", "connections", "per second", "of bare"),
            *("median ms", "p99 ms", "errors", "stored"),
        ),
    )
    if shutil.which("wrk") is None:
        table.note = "Not measured: this needs wrk (apt-get install wrk)."
        yield table
        return
    seconds = QUICK_SECONDS if quick else SECONDS
    with running_redis() as redis:
        for connections in QUICK_CONNECTIONS if quick else CONNECTIONS:
            bare = measure(BARE, redis, connections, seconds)
            ours = measure(ALONE, redis, connections, seconds)
            for name, row in (("bare endpoint", bare), ("our receiver", ours)):
                share = row.rate / bare.rate
                times = (row.median, row.p99)
                counts = (row.errors, row.stored)
                table.add(name, connections, row.rate, share, *times, *counts)
                yield table
