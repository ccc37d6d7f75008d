# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""A receiver that runs alone, on a free port, for demos, tests and benchmarks."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

import requests

from runqy_sandbox.process.net import free_port
from runqy_sandbox.process.watchdog import run_with_watchdog

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator, Mapping, Sequence

#: Seconds that it may take to answer.
START_LIMIT = 120.0

ALONE = (sys.executable, "-m", "runqy_provider.receiver")


@dataclass(frozen=True)
class RunningReceiver:
    """A receiver that answers.

    Attributes:
        url: Its address.
        process: Its process.
    """

    url: str
    process: subprocess.Popen[bytes]


@contextmanager
def running_receiver(
    redis_url: str,
    secret: str,
    *arguments: str,
    command: Sequence[str] = ALONE,
    port: int | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[RunningReceiver]:
    """Start a receiver, wait until it answers, and end it.

    Args:
        redis_url: The Redis of its inbox.
        secret: The callback secret.
        arguments: Further arguments of its command line.
        command: What to run.
        port: Where it listens, on the loopback; by default a free one.
        environment: More variables.

    Raises:
        RuntimeError: It ended, or did not answer in time.
    """
    port = port or free_port()
    url = f"http://127.0.0.1:{port}"
    own = {"RUNQY_INBOX_REDIS_URL": redis_url, "RUNQY_CALLBACK_SECRET": secret}
    with (
        tempfile.TemporaryFile("w+") as output,
        run_with_watchdog(
            [*command, "--port", str(port), *arguments],
            env={**os.environ, **own, **(environment or {})},
            stderr=output,
        ) as process,
    ):
        _wait_for(f"{url}/health", process, output)
        yield RunningReceiver(url, process)


def _wait_for(url: str, process: subprocess.Popen[bytes], output: TextIO) -> None:
    end = time.monotonic() + START_LIMIT
    while process.poll() is None and time.monotonic() < end:
        with contextlib.suppress(requests.RequestException):
            requests.get(url, timeout=5)
            return
        time.sleep(0.05)
    output.seek(0)
    raise RuntimeError(
        f"The receiver at {url} does not answer (exit status {process.poll()}). It "
        f"wrote: {output.read()[-2000:]}"
    )
