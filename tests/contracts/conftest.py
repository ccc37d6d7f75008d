"""Each sink in turn, on a real server."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from runqy_sandbox.process.net import free_port
from tests.contracts import backends
from tests.support.caches import clear_clients, clear_settings, dispose_engines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from devtools.servers.mariadb import MariaDB
    from tests.support.stack import Stack

SINKS = ("webhook", "folder", "s3", "sql", "mariadb", "redis_storage")


@pytest.fixture(scope="package")
def mariadb() -> Iterator[MariaDB]:
    """A real MariaDB."""
    from devtools.servers.mariadb import running_mariadb

    with running_mariadb() as mariadb:
        yield mariadb


@pytest.fixture(params=SINKS)
def backend(
    request: pytest.FixtureRequest,
    stack: Stack,
    connect: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[backends.Backend]:
    """One sink; ``runqy_default`` names all servers that it needs."""
    sandbox, port = stack.sandbox, free_port()
    database = tmp_path / "results.db"
    url = f"sqlite:///{database}"
    if request.param == "mariadb":
        url = request.getfixturevalue("mariadb").airflow_url
    monkeypatch.setenv("AIRFLOW_CONN_CONTRACT_DB", url)
    monkeypatch.setenv("AIRFLOW__RUNQY__OBJECT_SWEEP_SECONDS", "0.2")
    monkeypatch.setenv("AIRFLOW__RUNQY__POLL_SECONDS", "0.2")
    redis = json.dumps(stack.connections["redis_default"])
    monkeypatch.setenv("AIRFLOW_CONN_RUNQY_REDIS", redis)
    # Without a webhook only the sink itself can notice a delivery.
    without = () if request.param == "webhook" else ("callback_secret",)
    connect(without=without, runqy_redis_conn_id="runqy_redis")
    make: dict[str, Callable[[], backends.Backend]] = {
        "webhook": lambda: backends.webhook_backend(port),
        "folder": lambda: backends.folder_backend(tmp_path / "shared"),
        "s3": lambda: backends.s3_backend(sandbox.s3_url, port),
        "sql": lambda: backends.sql_backend(database, port),
        "mariadb": lambda: backends.mariadb_backend(
            request.getfixturevalue("mariadb"), port
        ),
        "redis_storage": lambda: backends.redis_storage_backend(
            sandbox.redis_url, port
        ),
    }
    yield make[request.param]()
    dispose_engines()


@pytest.fixture
def make_unavailable(
    backend: backends.Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server of the sink does not answer."""
    for conn_id, connection in backend.unavailable.items():
        name = f"AIRFLOW_CONN_{conn_id.upper()}"
        monkeypatch.setenv(name, json.dumps(connection))
    clear_settings()
    clear_clients()
    dispose_engines()
