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
class Places:
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


def open_places(stack: ExitStack, names: Collection[str], home: Path) -> Places:
    """Start what these sinks need.

    Args:
        stack: Ends it.
        names: Some of NAMES.
        home: A folder for what is kept in files.
    """
    places = Places()
    if "sql" in names:
        _sql(stack, places)
    if "amqp" in names:
        _amqp(stack, places)
    if "gs" in names:
        _gs(stack, places)
    if "abfs" in names:
        _abfs(stack, places)
    if "file" in names:
        folder = home / "results"
        folder.mkdir(parents=True)
        places.sinks["file"] = f"file://{folder}"
    return places


def _sql(stack: ExitStack, places: Places) -> None:
    from devtools.servers import postgres as server  # noqa: PLC0415 - needs psycopg

    postgres = stack.enter_context(server.running_postgres())
    with postgres.connect() as connection:
        connection.execute(TABLE)
    places.sinks["sql"] = "sql://results/tasks"
    places.connections["results"] = {
        "conn_type": "postgres",
        "host": "127.0.0.1",
        "port": postgres.port,
        "login": server.USER,
        "password": server.PASSWORD,
        "schema": "postgres",
    }
    places.environment["RUNQY_DELIVERY_DATABASE_URL"] = postgres.url


def _amqp(stack: ExitStack, places: Places) -> None:
    from devtools.servers import rabbitmq as server  # noqa: PLC0415 - needs pika

    rabbitmq = stack.enter_context(server.running_rabbitmq())
    places.sinks["amqp"] = "amqp://broker/faults"
    places.connections["broker"] = _of_url(rabbitmq.url)
    places.environment["RUNQY_DELIVERY_AMQP_URL"] = rabbitmq.url


def _of_url(url: str) -> dict[str, Any]:
    parts = urlsplit(url)
    return {
        "conn_type": "amqp",
        "host": parts.hostname,
        "port": parts.port,
        "login": unquote(parts.username or ""),
        "password": unquote(parts.password or ""),
    }


def _gs(stack: ExitStack, places: Places) -> None:
    from devtools.servers import google_storage as server  # noqa: PLC0415 - needs its emulator

    google = stack.enter_context(server.running_google_storage())
    google.create_bucket("results")
    places.sinks["gs"] = "gs://results/faults"
    places.connections["google_cloud_default"] = {
        "conn_type": "google_cloud_platform",
        "extra": {"keyfile_dict": json.dumps(google.key)},
    }


def _abfs(stack: ExitStack, places: Places) -> None:
    from devtools.servers import azurite as server  # noqa: PLC0415 - needs its client

    azurite = stack.enter_context(server.running_azurite())
    azurite.create_container("results")
    places.sinks["abfs"] = "abfs://results/faults"
    places.connections["wasb_default"] = {
        "conn_type": "wasb",
        "extra": {"connection_string": azurite.connection_string},
    }
