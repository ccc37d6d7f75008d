# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Where results can go: sinks by short names, and the servers that they need."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Collection
    from contextlib import ExitStack
    from pathlib import Path

#: Where the tests keep what starts their servers.

NAMES = ("webhook", "s3", "redis_storage", "sql", "amqp", "gs", "abfs", "file")

TABLE = (
    "CREATE TABLE tasks (id text PRIMARY KEY, status text NOT NULL, result text, "
    "completed_at timestamptz)"
)


@dataclass
class Backends:
    """Sinks, and what Airflow and task code must know of them.

    Attributes:
        sinks: URIs by short name.
        connections: For Airflow.
        environment: For task code.
    """

    sinks: dict[str, str] = field(
        default_factory=lambda: {
            "webhook": "webhook",
            "s3": "s3://results/faults",
            "redis_storage": "redis_storage",
        }
    )
    connections: dict[str, dict[str, Any]] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)


def open_backends(stack: ExitStack, names: Collection[str], home: Path) -> Backends:
    """Start what these sinks need.

    Args:
        stack: Ends it.
        names: Some of NAMES.
        home: A folder for what is kept in files.
    """
    backends = Backends()
    if "sql" in names:
        _sql(stack, backends)
    if "amqp" in names:
        _amqp(stack, backends)
    if "gs" in names:
        _gs(stack, backends)
    if "abfs" in names:
        _abfs(stack, backends)
    if "file" in names:
        folder = home / "results"
        folder.mkdir(parents=True)
        backends.sinks["file"] = f"file://{folder}"
    return backends


def _sql(stack: ExitStack, backends: Backends) -> None:
    from devtools.servers import postgres as server  # noqa: PLC0415 - needs psycopg

    postgres = stack.enter_context(server.running_postgres())
    with postgres.connect() as connection:
        connection.execute(TABLE)
    backends.sinks["sql"] = "sql://results/tasks"
    backends.connections["results"] = {
        "conn_type": "postgres",
        "host": "127.0.0.1",
        "port": postgres.port,
        "login": server.USER,
        "password": server.PASSWORD,
        "schema": "postgres",
    }
    backends.environment["RUNQY_DELIVERY_DATABASE_URL"] = postgres.url


def _amqp(stack: ExitStack, backends: Backends) -> None:
    from devtools.servers import rabbitmq as server  # noqa: PLC0415 - needs pika

    rabbitmq = stack.enter_context(server.running_rabbitmq())
    backends.sinks["amqp"] = "amqp://broker/faults"
    backends.connections["broker"] = _of_url(rabbitmq.url)
    backends.environment["RUNQY_DELIVERY_AMQP_URL"] = rabbitmq.url


def _of_url(url: str) -> dict[str, Any]:
    parts = urlsplit(url)
    return {
        "conn_type": "amqp",
        "host": parts.hostname,
        "port": parts.port,
        "login": unquote(parts.username or ""),
        "password": unquote(parts.password or ""),
    }


def _gs(stack: ExitStack, backends: Backends) -> None:
    from devtools.servers import google_storage as server  # noqa: PLC0415 - needs its emulator

    google = stack.enter_context(server.running_google_storage())
    google.create_bucket("results")
    backends.sinks["gs"] = "gs://results/faults"
    backends.connections["google_cloud_default"] = {
        "conn_type": "google_cloud_platform",
        "extra": {"keyfile_dict": json.dumps(google.key)},
    }


def _abfs(stack: ExitStack, backends: Backends) -> None:
    from devtools.servers import azurite as server  # noqa: PLC0415 - needs its client

    azurite = stack.enter_context(server.running_azurite())
    azurite.create_container("results")
    backends.sinks["abfs"] = "abfs://results/faults"
    backends.connections["wasb_default"] = {
        "conn_type": "wasb",
        "extra": {"connection_string": azurite.connection_string},
    }
