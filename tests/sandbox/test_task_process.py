# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Tests of a task process: failed starts, crashes, and broken responses."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from runqy_sandbox.asynq.keys import new_message
from runqy_sandbox.queues import parse_queues
from runqy_sandbox.worker import task_process
from runqy_sandbox.worker.job import Job
from runqy_sandbox.worker.task_process import TaskFailed, TaskProcess

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

TIMEOUT = 10.0
SDK = "from runqy_python import *\nimport os, pathlib\n"
FAILED_LOAD = f"{SDK}@load\ndef l(): 1/0\n@task\ndef t(p, c): ...\nrun()"
#: Crashes on its first job, fails to restart once, restarts, and then works.
FLAKY = f"""{SDK}
first, second = pathlib.Path("first"), pathlib.Path("second")
if first.exists() and not second.exists():
    second.touch()
    raise SystemExit(1)

@task
def handle(payload):
    if not first.exists():
        first.touch()
        os._exit(3)
    return payload

run()
"""


def _process(directory: Path, code: str, **deployment: Any) -> TaskProcess:
    (directory / "main.py").write_text(code)
    deployment = {"task_code": str(directory), **deployment}
    config = {"queues": {"q": {"deployment": deployment}}}
    [queue] = parse_queues(config).queues
    return TaskProcess(queue, {})


def _job(payload: bytes = b'{"n": 1}') -> Job:
    message = new_message("id", "q.default", payload)
    return Job("id", "q.default", message, 0)


@contextlib.asynccontextmanager
async def _supervised(process: TaskProcess) -> AsyncIterator[TaskProcess]:
    await process.start()
    loop = asyncio.create_task(process.supervise())
    try:
        yield process
    finally:
        loop.cancel()
        await asyncio.gather(loop, return_exceptions=True)
        await process.stop()


@pytest.mark.parametrize(
    ("code", "deployment", "message"),
    [
        ("import time; time.sleep(60)", {"startup_timeout_secs": 0.3}, "not ready wi"),
        ("", {"startup_cmd": "no-such-program"}, "cannot run 'no-such-program'"),
        ("", {}, "exited before it was ready"),
        (FAILED_LOAD, {}, "process startup failed: @load failed: division by zero"),
    ],
)
async def test_start_process_never_ready_raises_error(
    tmp_path: Path, code: str, deployment: dict[str, Any], message: str
) -> None:
    process = _process(tmp_path, code, **deployment)
    await process.stop()  # nothing to stop yet
    with pytest.raises(TaskFailed) as caught:
        await process.start()
    assert message in str(caught.value)
    assert not process.is_healthy


async def test_supervise_failed_restart_is_retried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task_process, "RESTART_DELAY", 0.01)
    async with _supervised(_process(tmp_path, FLAKY)) as process:
        with pytest.raises(TaskFailed, match="handler stopped while waiting"):
            await process.run(_job())
        assert await process.run(_job()) == '{"n": 1}'
    assert (tmp_path / "second").exists()


async def test_run_process_not_ready_raises_error_after_timeout(
    tmp_path: Path,
) -> None:
    process = _process(tmp_path, "", startup_timeout_secs=0.1)
    with pytest.raises(TaskFailed, match="queue q supervisor crashed"):
        await process.run(_job())


async def test_run_response_with_nan_is_ignored(tmp_path: Path) -> None:
    code = f"{SDK}@task\ndef t(payload): return float('nan')\nrun()"
    async with _supervised(_process(tmp_path, code)) as process:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(process.run(_job()), 0.3)
        assert process.in_flight == 0


async def test_supervise_process_that_closed_stdout_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task_process, "STOP_TIMEOUT", 0.1)
    code = (
        'import os, sys, time\nos.write(1, b\'{"status": "ready"}\\n\')\n'
        "sys.stdin.readline()\nos.close(1)\ntime.sleep(60)"
    )
    async with _supervised(_process(tmp_path, code)) as process:
        with pytest.raises(TaskFailed, match="handler stopped while waiting"):
            await asyncio.wait_for(process.run(_job()), TIMEOUT)
