# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""One RunqyBatchOperator with many jobs that take no time, on a real Airflow.

The floor is the same jobs without Airflow: enqueued by a bare pipeline, taken by the
same worker, delivered to the same receiver. In one run a worker's and a triggerer's
process are killed before the end.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from redis import Redis

from devtools.airflow import Airflow
from devtools.benchmarks.process_cost import memory, tree_of
from devtools.benchmarks.quick_worker import DELIVERED, RUNS
from devtools.benchmarks.table import Table
from devtools.client import FINISHED, AirflowClient
from devtools.receiver import running_receiver
from devtools.servers.postgres import running_postgres
from runqy_provider.client.models import JobOptions
from runqy_provider.client.redis_transport import NewJob, RedisTransport
from runqy_provider.inbox import callback_url
from runqy_provider.redis_connection import RedisConnection
from runqy_sandbox.process.watchdog import run_with_watchdog
from runqy_sandbox.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HERE = Path(__file__).resolve().parent
QUEUE = "idle.default"

#: Seconds without progress after which a run is given up.
STUCK_AFTER = 120.0

#: Seconds between two measurements of the processes.
SAMPLE_INTERVAL = 0.2


@dataclass
class Peaks:
    """The largest memory that Airflow's processes had, in KiB."""

    airflow: Airflow
    task: float = 0.0
    triggerer: float = 0.0
    _over: threading.Event = field(default_factory=threading.Event)

    def watch(self) -> None:
        """Look at the processes until ``stop``; for a thread of its own."""
        while not self._over.wait(SAMPLE_INTERVAL):
            self.task = max(self.task, *map(_memory, self.airflow.task_processes()), 0)
            process = self.airflow.processes.get("triggerer")
            if process is not None:
                found = tree_of(process.pid)
                self.triggerer = max(self.triggerer, *map(_memory, found))

    def stop(self) -> None:
        """End ``watch``."""
        self._over.set()


@dataclass(frozen=True)
class Bench:
    """All that a run needs."""

    airflow: Airflow
    client: AirflowClient
    redis: Redis
    redis_port: int
    receiver_url: str
    secret: str
    folder: Path

    def floor(self, jobs: int) -> float:
        """Return how many seconds the jobs take without Airflow."""
        self.redis.delete(DELIVERED, RUNS)
        began = time.monotonic()
        options = (("host", "127.0.0.1"), ("port", self.redis_port))
        connection = RedisConnection("redis", f"127.0.0.1:{self.redis_port}", options)
        expires = int(time.time()) + 3600
        with contextlib.closing(RedisTransport(connection)) as redis:
            for start in range(0, jobs, 1000):
                new = []
                for n in range(start, min(start + 1000, jobs)):
                    name = f"floor-{began:.0f}-{n}"
                    url = callback_url.url(
                        self.receiver_url, self.secret, "runqy_default", name, expires
                    )
                    payload = {"n": n, "task_id": name, "webhook_url": url}
                    new.append(NewJob(name, payload))
                redis.enqueue(QUEUE, new, JobOptions())
        self._wait(lambda: self.delivered >= jobs)
        return time.monotonic() - began

    def run(self, jobs: int, *, kills: bool = False) -> tuple[float, Peaks, str]:
        """Run the batch; return the seconds, the memory, and how it ended."""
        self.redis.delete(DELIVERED, RUNS)
        path = self.folder / f"{jobs}.jsonl"
        with path.open("w") as file:
            for n in range(jobs):
                file.write(json.dumps({"n": n, "input": "x" * 100}) + "\n")
        peaks = Peaks(self.airflow)
        watch = threading.Thread(target=peaks.watch)
        watch.start()
        try:
            began = time.monotonic()
            run_id = self.client.trigger("batch", {"payloads": str(path)})
            if kills:
                self._kill(jobs)
            self._wait(lambda: self.client.state("batch", run_id) in FINISHED)
            seconds = time.monotonic() - began
        finally:
            peaks.stop()
            watch.join()
        return seconds, peaks, self._outcome(run_id, jobs)

    @property
    def delivered(self) -> int:
        """How many deliveries the worker has made."""
        number: Any = self.redis.scard(DELIVERED)
        return int(number)

    def _kill(self, jobs: int) -> None:
        """Kill the worker's process while it enqueues, and later the triggerer's."""
        enqueued = jobs // 10
        self._wait(
            lambda: self._enqueued >= enqueued and bool(self.airflow.task_processes())
        )
        for process in self.airflow.task_processes():
            process.kill()
        self._wait(lambda: self.delivered >= jobs // 2)
        self.airflow.kill("triggerer")
        self.airflow.start_component("triggerer")

    @property
    def _enqueued(self) -> int:
        pending: Any = self.redis.llen(f"asynq:{{{QUEUE}}}:pending")
        return int(pending) + self.delivered

    def _outcome(self, run_id: str, jobs: int) -> str:
        state = self.client.state("batch", run_id)
        tasks = self.client.task_instances("batch", run_id)
        receipt = self.client.xcom(tasks[0], "runqy_delivery") or {}
        runs = int(self.redis.get(RUNS) or 0)
        lines = 0
        if receipt:
            name = receipt["delivery_id"]
            key = f"runqy:inbox:runqy_default:manifest:{name}"
            manifest: Any = self.redis.get(key)
            numbers = [json.loads(line)["value"]["n"] for line in manifest.splitlines()]
            lines = len(numbers) if numbers == list(range(jobs)) else -1
        return f"{state}, {lines:,} results in order, {runs - jobs:,} jobs twice"

    def _wait(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition, as long as deliveries or task states change.

        Raises:
            TimeoutError: Nothing has changed for too long.
        """
        changed, last = time.monotonic(), -1
        while not condition():
            now = self.delivered + self._enqueued
            if now != last:
                changed, last = time.monotonic(), now
            if time.monotonic() - changed > STUCK_AFTER:
                raise TimeoutError(f"nothing has changed for {STUCK_AFTER:.0f} s")
            time.sleep(SAMPLE_INTERVAL)


def run(*, quick: bool) -> Iterator[Table]:
    """Run small batches, and a large one with kills."""
    table = Table(
        "batch",
        "One task, many jobs",
        (
            "jobs",
            "way",
            "wall s",
            "without Airflow s",
            "overhead s",
            "task MiB",
            "triggerer MiB",
            "outcome",
        ),
        note=(
            "*overhead*: wall time less that of the same jobs without Airflow. "
            "*MiB*: the largest resident memory of the process."
        ),
    )
    jobs = 10_000 if quick else 100_000
    with open_bench() as bench:
        for number, way in ((100, ""), (10_000, ""), (jobs, "killed twice")):
            floor = bench.floor(number)
            seconds, peaks, outcome = bench.run(number, kills=bool(way))
            table.add(
                number,
                way or "undisturbed",
                seconds,
                floor,
                seconds - floor,
                peaks.task / 1024,
                peaks.triggerer / 1024,
                outcome,
            )
    yield table


@contextlib.contextmanager
def open_bench() -> Iterator[Bench]:
    """Start Airflow on PostgreSQL, Redis, a receiver and the quick worker."""
    secret = secrets.token_hex(16)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        database = stack.enter_context(running_postgres()).airflow_url
        sandbox = stack.enter_context(Sandbox({"queues": {"idle": {}}}))
        receiver = stack.enter_context(running_receiver(sandbox.redis_url, secret))
        port = str(sandbox.redis_port)
        worker = [sys.executable, "-m", "devtools.benchmarks.quick_worker"]
        stack.enter_context(run_with_watchdog([*worker, port, QUEUE]))
        connections = sandbox.connections(receiver.url, secret)
        connections["runqy_default"]["extra"]["transport"] = "redis"
        airflow = Airflow(
            folder / "home", HERE / "dags", connections, database=database
        )
        stack.enter_context(airflow)
        client = AirflowClient(airflow.url)
        client.wait_for_dags({"batch"})
        redis = stack.enter_context(Redis.from_url(sandbox.redis_url))
        yield Bench(airflow, client, redis, int(port), receiver.url, secret, folder)


def _memory(process: psutil.Process) -> float:
    try:
        return memory(process.pid)
    except psutil.NoSuchProcess:
        return 0.0  # it has ended
