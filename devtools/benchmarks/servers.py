# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""A Redis for one benchmark, and Airflow's connections to it."""

from __future__ import annotations

import json
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from redis import Redis

from runqy_sandbox.process.child import Child
from runqy_sandbox.process.net import free_port
from runqy_sandbox.process.watchdog import Watchdog
from runqy_sandbox.redis_server import redis_program

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: The runqy connection of the benchmarks.
CONN_ID = "runqy_default"


@contextmanager
def running_redis(*, appendonly: bool = False) -> Iterator[Redis]:
    """Start an empty Redis, and return a client of it."""
    with tempfile.TemporaryDirectory() as folder:
        port, watchdog = free_port(), Watchdog()
        program = redis_program(port, Path(folder), appendonly=appendonly)
        process = Child(program, Path(folder) / "redis.log", watchdog)
        process.start()
        try:
            with Redis(port=port) as client:
                yield client
        finally:
            process.stop()
            watchdog.close()


def port_of(redis: Redis) -> int:
    """Return the port of the Redis that a client is connected to."""
    return int(redis.connection_pool.connection_kwargs["port"])


def webhook_connections(redis_port: int, secret: str) -> dict[str, Any]:
    """Return connections with an inbox, and without a runqy: no job is observed."""
    extra = {
        "redis_conn_id": "redis_default",
        "callback_url": "http://127.0.0.1:9/runqy",
        "callback_secret": secret,
    }
    return {
        CONN_ID: {"conn_type": "runqy", "host": "http://127.0.0.1:9", "extra": extra},
        "redis_default": {
            "conn_type": "redis",
            "host": "127.0.0.1",
            "port": redis_port,
        },
    }


def as_environment(connections: Mapping[str, Any]) -> dict[str, str]:
    """Return the variables by which Airflow reads connections."""
    return {
        f"AIRFLOW_CONN_{conn_id.upper()}": json.dumps(fields)
        for conn_id, fields in connections.items()
    }
