# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Task code in a process of its own: JSON lines in, JSON lines out."""

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

#: runqy-worker reads no longer lines.
MAX_LINE = 10 * 1024 * 1024
#: How long to wait before a process that did not come up is started again.
RESTART_DELAY = 1.0
#: How long a process may take to end by itself.
EXIT_GRACE = 1.0
#: A person's own AWS session must not win over the sandbox's credentials.
FOREIGN = ("AWS_PROFILE", "AWS_SESSION_TOKEN")


class TaskFailed(Exception):
    """The attempt failed; the text is what runqy-worker writes as `error_msg`."""


class TaskProcess:
    """One Python process of a queue, started again whenever it dies."""

    def __init__(self, queue: Queue, environment: Mapping[str, str]) -> None:
        self.queue = queue
        self._environment = {
            **{k: v for k, v in os.environ.items() if k not in FOREIGN},
            **environment,
        }
        self._process: asyncio.subprocess.Process | None = None
        self._ready = asyncio.Event()
        self._waiting: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._in_hand = 0

    @property
    def is_healthy(self) -> bool:
        """Whether the process takes jobs."""
        return self._ready.is_set()

    @property
    def in_hand(self) -> int:
        """How many jobs it has not answered for, or is to get once it is ready."""
        return self._in_hand

    async def start(self) -> None:
        """Start the process and wait until it says that it is ready.

        Raises:
            TaskFailed: It did not become ready.
        """
        self._process = await self._spawn()
        try:
            async with asyncio.timeout(self.queue.startup_timeout):
                await self._wait_for_ready()
        except TimeoutError as error:
            await self.stop()
            raise TaskFailed(
                f"queue {self.queue.name}: '{self.queue.startup_cmd}' in "
                f"{self.queue.task_code} was not ready within "
                f"{self.queue.startup_timeout:g} s. Does it call runqy_python.run()?"
            ) from error
        self._ready.set()

    async def supervise(self) -> None:
        """Read answers for ever, and start the process again when it dies."""
        while True:
            await self._read_answers()
            self._ready.clear()
            await self.stop()
            self._fail_waiting()
            log.error("Queue %s: the task process died", self.queue.name)
            while not self._ready.is_set():
                try:
                    await self.start()
                except TaskFailed:
                    log.exception("Queue %s: cannot restart it", self.queue.name)
                    await asyncio.sleep(RESTART_DELAY)

    async def run(self, job: Job) -> str:
        """Run one attempt and return the JSON text of the result.

        Raises:
            TaskFailed: The handler raised, or the process died.
        """
        self._in_hand += 1
        try:
            return await self._run(job)
        finally:
            self._in_hand -= 1

    async def _run(self, job: Job) -> str:
        try:
            async with asyncio.timeout(self.queue.startup_timeout):
                await self._ready.wait()
        except TimeoutError as error:
            raise TaskFailed(f"queue {self.queue.name} supervisor crashed") from error
        answer = asyncio.get_running_loop().create_future()
        self._waiting[job.id] = answer
        try:
            await self._send(job)
            return _result(await answer)
        finally:
            self._waiting.pop(job.id, None)

    async def stop(self) -> None:
        """End the process; a handler that still runs is waited for a moment only."""
        if self._process is None:
            return
        if self._process.stdin is not None:
            # The end of its input is what an idle process ends by.
            self._process.stdin.close()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._process.wait(), EXIT_GRACE)
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
        await self._process.wait()

    async def _spawn(self) -> asyncio.subprocess.Process:
        words = shlex.split(self.queue.startup_cmd)
        program = sys.executable if words[0].startswith("python") else words[0]
        try:
            return await asyncio.create_subprocess_exec(
                program,
                *words[1:],
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
            f"{self.queue.task_code} ended before it was ready; its own words are above"
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
        # A process that is gone is noticed, and its jobs failed, by the reader.
        with contextlib.suppress(ConnectionError):
            stdin.write(json.dumps(request).encode() + b"\n")
            await stdin.drain()

    async def _read_answers(self) -> None:
        while line := await self._read_line():
            answer = _parse(line)
            future = self._waiting.get(str(answer.get("task_id")))
            if future is not None and not future.done():
                future.set_result(answer)

    async def _read_line(self) -> bytes:
        """Return the next line; nothing at the end, or after a line too long."""
        stdout = self._process.stdout if self._process else None
        if stdout is None:
            return b""
        try:
            return await stdout.readline()
        except ValueError:
            log.exception("Queue %s: a line over 10 MiB on stdout", self.queue.name)
            return b""

    def _fail_waiting(self) -> None:
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(
                    TaskFailed("handler stopped while waiting for response")
                )


def _payload(payload: bytes) -> Any:
    """Return the payload as JSON; what is no JSON arrives as null."""
    try:
        return json.loads(payload)
    except ValueError:
        return None


def _parse(line: bytes) -> dict[str, Any]:
    """Return one message; a line that is no JSON object is logged and skipped."""
    try:
        message = json.loads(line, parse_constant=_refuse_constant)
    except ValueError:
        log.warning("Failed to parse response: %r", line[:200])
        return {}
    return message if isinstance(message, dict) else {}


def _refuse_constant(name: str) -> Any:
    # Python's json writes NaN; Go does not read it, so neither does this worker.
    raise ValueError(name)


def _result(answer: Mapping[str, Any]) -> str:
    error = answer.get("error")
    if not error:
        return json.dumps(answer.get("result"))
    if answer.get("retry"):
        raise TaskFailed(f"{error} (will retry)")
    raise TaskFailed(f"permanent failure: {error}")
