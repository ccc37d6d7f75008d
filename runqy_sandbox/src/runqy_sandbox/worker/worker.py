# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The stand-in for runqy-worker: ``python -m runqy_sandbox.worker.worker``."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from runqy_sandbox.asynq.keys import key, queue_of
from runqy_sandbox.queues import parse_queues
from runqy_sandbox.settings import WorkerSettings
from runqy_sandbox.worker import heartbeat, lease
from runqy_sandbox.worker.job import complete, due_time, fail, requeue, take
from runqy_sandbox.worker.task_process import TaskFailed, TaskProcess

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runqy_sandbox.queues import SubQueue
    from runqy_sandbox.worker.job import Job

log = logging.getLogger("runqy.sandbox.worker")

#: How long one BRPOP waits, and so how long a stop may go unnoticed, in seconds.
POLL_TIMEOUT = 0.5
#: The shortest and longest time between two checks of leases and retries, in seconds.
MIN_INTERVAL, MAX_INTERVAL = 0.02, 1.0
#: How long running jobs may continue after a stop before they are requeued, in seconds.
STOP_TIMEOUT = 1.0


class Worker:
    """Takes jobs from the queues by priority, and has task processes run them.

    Args:
        settings: The settings of the worker.
        redis: The client to take jobs with.
    """

    def __init__(self, settings: WorkerSettings, redis: Redis) -> None:
        self._settings = settings
        self._redis = redis
        self._queues = {
            sub.name: queue
            for queue in parse_queues(settings.queues).served
            for sub in queue.sub_queues
        }
        self._processes = {
            queue.name: [
                TaskProcess(queue, settings.environment)
                for _ in range(settings.processes)
            ]
            for queue in self._queues.values()
        }
        self._jobs: dict[str, Job] = {}
        self._stopping = asyncio.Event()
        # One consumer polls at a time, so that an idle worker costs little.
        self._poll_lock = asyncio.Lock()
        self._has_failed = asyncio.Event()

    async def run(self) -> None:
        """Start the task processes, and run jobs until ``stop`` is called.

        Raises:
            TaskFailed: The code of no queue starts.
        """
        processes = [p for group in self._processes.values() for p in group]
        loops: list[asyncio.Task[None]] = []
        try:
            await self._start()
            loops += [
                asyncio.create_task(process.supervise())
                for group in self._processes.values()
                for process in group
            ]
            loops += [
                asyncio.create_task(self._send_heartbeats()),
                asyncio.create_task(self._maintain()),
            ]
            consumers = [
                asyncio.create_task(self._consume())
                for _ in range(self._settings.concurrency)
            ]
            await self._stopping.wait()
            await self._finish(consumers)
        finally:
            await _cancel(loops)
            await asyncio.gather(*(process.stop() for process in processes))

    def stop(self) -> None:
        """Take no more jobs, and make ``run`` return."""
        self._stopping.set()

    async def _start(self) -> None:
        """Start the task processes; a queue whose code does not start is not served.

        Raises:
            TaskFailed: There are queues, and the code of none of them starts.
        """
        names = list(self._processes)
        errors = await asyncio.gather(
            *(_start_all(self._processes[name]) for name in names)
        )
        failed = {n: e for n, e in zip(names, errors, strict=True) if e is not None}
        if failed and len(failed) == len(names):
            raise failed[names[0]]
        for name, error in failed.items():
            log.error("Queue %s is not served: %s", name, error)
            del self._processes[name]
        self._queues = {
            sub: queue
            for sub, queue in self._queues.items()
            if queue.name not in failed
        }

    @property
    def _by_priority(self) -> list[SubQueue]:
        subs = {s.name: s for q in self._queues.values() for s in q.sub_queues}
        return sorted(subs.values(), key=lambda sub: (-sub.priority, sub.name))

    async def _consume(self) -> None:
        keys = [key(sub.name, "pending") for sub in self._by_priority]
        while keys and not self._stopping.is_set():
            try:
                async with self._poll_lock:
                    if self._stopping.is_set():
                        return
                    popped: Any = await self._redis.brpop(keys, timeout=POLL_TIMEOUT)
                if popped is not None:
                    await self._handle(queue_of(popped[0].decode()), popped[1].decode())
            except RedisError as error:
                log.error("Redis does not respond: %s", error)  # noqa: TRY400 - expected
                await asyncio.sleep(POLL_TIMEOUT)

    async def _handle(self, queue: str, job_id: str) -> None:
        lease_end = due_time(self._settings.lease_seconds)
        job = await take(self._redis, queue, job_id, lease_end)
        if job is None:
            log.warning("Task data not found for ID: %s", job_id)
            return
        log.info("Processing task %s (queue=%s, retry=%d)", job_id, queue, job.retried)
        self._jobs[job_id] = job
        try:
            await self._attempt(job)
        finally:
            self._jobs.pop(job_id, None)

    async def _attempt(self, job: Job) -> None:
        parent = self._queues[job.queue]
        store = parent.redis_storage
        processes = self._processes[parent.name]
        # Prefer a process that is restarting to one with more jobs: a process that dies
        # fails all of its jobs.
        process = min(processes, key=lambda p: (p.in_flight, not p.is_healthy))
        try:
            result = await process.run(job)
        except TaskFailed as error:
            log.error("Task %s failed: %s", job.id, error)  # noqa: TRY400 - task code's
            retry_unit = self._settings.retry_unit
            await fail(self._redis, job, str(error), store=store, retry_unit=retry_unit)
            self._has_failed.set()
        else:
            await complete(self._redis, job, result, store=store)
            log.info("Task %s completed successfully", job.id)

    async def _finish(self, consumers: list[asyncio.Task[None]]) -> None:
        await asyncio.wait(consumers, timeout=POLL_TIMEOUT + STOP_TIMEOUT)
        left = list(self._jobs.values())
        await _cancel(consumers)
        try:
            for job in left:
                await requeue(self._redis, job)
            await self._write_heartbeat(status="stopped")
        except RedisError as error:
            log.warning("Redis does not respond while the worker stops: %s", error)

    async def _send_heartbeats(self) -> None:
        while True:
            try:
                await self._write_heartbeat()
            except RedisError as error:
                log.warning("Redis does not respond: %s", error)
            await asyncio.sleep(heartbeat.INTERVAL)

    async def _write_heartbeat(self, status: str = "running") -> None:
        groups = self._processes.values()
        await heartbeat.write(
            self._redis,
            sorted(self._by_priority, key=lambda sub: sub.name),
            concurrency=self._settings.concurrency,
            healthy=all(p.is_healthy for group in groups for p in group),
            status=status,
        )

    async def _maintain(self) -> None:
        """Check leases and retries when one is due, or when a job has failed."""
        while True:
            delay = MAX_INTERVAL
            try:
                delay = await self._check_due()
            except RedisError as error:
                log.warning("Redis does not respond: %s", error)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._has_failed.wait(), delay)
            self._has_failed.clear()

    async def _check_due(self) -> float:
        """Extend leases, and fail or retry the jobs that are due.

        Returns:
            The time until the next check, in seconds.
        """
        retry_unit = self._settings.retry_unit
        await lease.extend(
            self._redis, list(self._jobs.values()), self._settings.lease_seconds
        )
        due = await lease.next_due(self._redis, self._queues)
        now = time.time()
        for name, queue in self._queues.items():
            if due.get(name, math.inf) > now:
                continue
            store = queue.redis_storage
            expired = await lease.recover(
                self._redis, name, store=store, retry_unit=retry_unit
            )
            for job_id in expired:
                log.warning("Recovered task %s: its lease expired", job_id)
            await lease.enqueue_due_retries(self._redis, name)
        until_due = min(due.values(), default=math.inf) - now
        longest = min(MAX_INTERVAL, self._settings.lease_seconds / 4)
        return max(MIN_INTERVAL, min(until_due, longest))


async def _start_all(processes: Iterable[TaskProcess]) -> TaskFailed | None:
    """Start the processes of a queue: all of them, or none; return the first error."""
    processes = list(processes)
    started = await asyncio.gather(
        *(process.start() for process in processes), return_exceptions=True
    )
    errors = [error for error in started if error is not None]
    for error in errors:
        if not isinstance(error, TaskFailed):
            raise error
    if not errors:
        return None
    await asyncio.gather(*(process.stop() for process in processes))
    return next(error for error in errors if isinstance(error, TaskFailed))


async def _cancel(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel tasks and wait until they have ended."""
    tasks = list(tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def run_worker(settings: WorkerSettings) -> None:
    """Run a worker until SIGTERM or SIGINT."""
    # No timeout: redis-py's default may be shorter than BRPOP's.
    redis = Redis.from_url(settings.redis_url, socket_timeout=None)
    async with redis:
        worker = Worker(settings, redis)
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, worker.stop)
        await worker.run()


def main() -> int:
    """Run a worker with the settings from the environment; return the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        asyncio.run(run_worker(WorkerSettings.from_environment()))
    except TaskFailed as error:
        sys.stderr.write(f"The worker cannot start: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
