# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""A process that runs task code: JSON lines in, JSON lines out."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import shlex
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runqy_sandbox.queues import Queue
    from runqy_sandbox.worker.job import Job

log = logging.getLogger("runqy.sandbox.worker")

#: The longest line that runqy-worker reads, in bytes.
MAX_LINE = 10 * 1024 * 1024
#: How long to wait after a failed start before the next one, in seconds.
RESTART_DELAY = 1.0
#: How long a process may take to exit before it is killed, in seconds.
STOP_TIMEOUT = 1.0
#: Variables of the user's own AWS session, which would override the sandbox's keys.
REMOVED_VARIABLES = ("AWS_PROFILE", "AWS_SESSION_TOKEN")


class TaskFailed(Exception):
    """An attempt failed; the message is what runqy-worker writes as ``error_msg``."""


class TaskProcess:
    """A process that runs the task code of a queue, restarted whenever it dies.

    Args:
        queue: The queue.
        environment: Variables to add to this process's environment.
    """

    def __init__(self, queue: Queue, environment: Mapping[str, str]) -> None:
        self.queue = queue
        self._environment = {
            **{k: v for k, v in os.environ.items() if k not in REMOVED_VARIABLES},
            **environment,
        }
        self._process: asyncio.subprocess.Process | None = None
        self._ready = asyncio.Event()
        self._responses: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._in_flight = 0

    @property
    def is_healthy(self) -> bool:
        """Whether the process is ready for jobs."""
        return self._ready.is_set()

    @property
    def in_flight(self) -> int:
        """How many jobs the process runs, or gets as soon as it is ready."""
        return self._in_flight

    async def start(self) -> None:
        """Start the process and wait until it reports that it is ready.

        Raises:
            TaskFailed: The process did not become ready.
        """
        self._process = await self._spawn()
        try:
            await asyncio.wait_for(self._wait_for_ready(), self.queue.startup_timeout)
        except asyncio.TimeoutError as error:
            await self.stop()
            raise TaskFailed(
                f"queue {self.queue.name}: '{self.queue.startup_cmd}' in "
                f"{self.queue.task_code} was not ready within "
                f"{self.queue.startup_timeout:g} s. Does it call runqy_python.run()?"
            ) from error
        self._ready.set()

    async def supervise(self) -> None:
        """Read responses, and restart the process when it dies; never returns."""
        while True:
            await self._read_responses()
            self._ready.clear()
            await self.stop()
            self._fail_in_flight()
            log.error("Queue %s: the task process died", self.queue.name)
            while not self._ready.is_set():
                try:
                    await self.start()
                except TaskFailed:
                    log.exception(
                        "Queue %s: the task process did not restart", self.queue.name
                    )
                    await asyncio.sleep(RESTART_DELAY)

    async def run(self, job: Job) -> str:
        """Run one attempt and return the JSON text of the result.

        Raises:
            TaskFailed: The handler raised, or the process died.
        """
        self._in_flight += 1
        try:
            return await self._run(job)
        finally:
            self._in_flight -= 1

    async def _run(self, job: Job) -> str:
        try:
            await asyncio.wait_for(self._ready.wait(), self.queue.startup_timeout)
        except asyncio.TimeoutError as error:
            raise TaskFailed(f"queue {self.queue.name} supervisor crashed") from error
        response = asyncio.get_running_loop().create_future()
        self._responses[job.id] = response
        try:
            await self._send(job)
            return _result(await response)
        finally:
            self._responses.pop(job.id, None)

    async def stop(self) -> None:
        """Stop the process; kill it if it has not exited after ``STOP_TIMEOUT``."""
        if self._process is None:
            return
        if self._process.stdin is not None:
            # An idle process exits at the end of its input.
            self._process.stdin.close()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._process.wait(), STOP_TIMEOUT)
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
        await self._process.wait()

    async def _spawn(self) -> asyncio.subprocess.Process:
        program, *arguments = shlex.split(self.queue.startup_cmd)
        if program.startswith("python"):
            program = sys.executable
        try:
            return await asyncio.create_subprocess_exec(
                program,
                *arguments,
                cwd=self.queue.task_code,
                env=self._environment,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=MAX_LINE,
            )
        except OSError as error:
            raise TaskFailed(
                f"queue {self.queue.name}: cannot run '{self.queue.startup_cmd}' in "
                f"{self.queue.task_code}: {error.strerror}"
            ) from error

    async def _wait_for_ready(self) -> None:
        while line := await self._read_line():
            message = _parse(line)
            if message.get("status") == "ready":
                return
            if message.get("status") == "error":
                await self.stop()
                raise TaskFailed(f"process startup failed: {message.get('error')}")
        await self.stop()
        raise TaskFailed(
            f"queue {self.queue.name}: '{self.queue.startup_cmd}' in "
            f"{self.queue.task_code} exited before it was ready; its output is above"
        )

    async def _send(self, job: Job) -> None:
        request = {
            "task_id": job.id,
            "type": job.message.type,
            "payload": _payload(job.message.payload),
            "retry_count": job.retried,
            "max_retry": job.message.retry,
            "queue": job.queue,
        }
        stdin = self._process.stdin if self._process else None
        if stdin is None:
            return
        # If the process is gone, ``supervise`` notices it and fails the jobs.
        with contextlib.suppress(ConnectionError):
            stdin.write(json.dumps(request).encode() + b"\n")
            await stdin.drain()

    async def _read_responses(self) -> None:
        while line := await self._read_line():
            message = _parse(line)
            response = self._responses.get(str(message.get("task_id")))
            if response is not None and not response.done():
                response.set_result(message)

    async def _read_line(self) -> bytes:
        """Return the next line; empty at the end, or if a line is too long."""
        stdout = self._process.stdout if self._process else None
        if stdout is None:
            return b""
        try:
            return await stdout.readline()
        except ValueError:
            log.exception(
                "Queue %s: task code wrote a line of more than 10 MiB to stdout",
                self.queue.name,
            )
            return b""

    def _fail_in_flight(self) -> None:
        for response in self._responses.values():
            if not response.done():
                response.set_exception(
                    TaskFailed("handler stopped while waiting for response")
                )


def _payload(payload: bytes) -> Any:
    """Parse a payload; like runqy-worker, pass null for one that is not valid JSON."""
    try:
        return json.loads(payload)
    except ValueError:
        return None


def _parse(line: bytes) -> dict[str, Any]:
    """Parse a message; a line that is not a JSON object gives an empty one."""
    try:
        message = json.loads(line, parse_constant=_reject_constant)
    except ValueError:
        log.warning("Failed to parse response: %r", line[:200])
        return {}
    return message if isinstance(message, dict) else {}


def _reject_constant(name: str) -> Any:
    # Python writes NaN, which runqy-worker cannot parse, as it is written in Go.
    raise ValueError(name)


def _result(response: Mapping[str, Any]) -> str:
    """Return the JSON text of the result in a response, or raise its error."""
    error = response.get("error")
    if not error:
        return json.dumps(response.get("result"))
    if response.get("retry"):
        raise TaskFailed(f"{error} (will retry)")
    raise TaskFailed(f"permanent failure: {error}")
