"""What all tests share: a Redis of their own, and an Airflow home of their own."""

from __future__ import annotations

import os
import tempfile
import uuid
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runqy_provider.connections import RedisSettings
    from runqy_sandbox.process.child import Child

# Airflow reads its home when it is first imported: long before any fixture.
_HOME = tempfile.mkdtemp(prefix="runqy-tests-")
os.environ.update(
    AIRFLOW_HOME=_HOME,
    AIRFLOW__CORE__LOAD_EXAMPLES="False",
    AIRFLOW__CORE__UNIT_TEST_MODE="False",
    AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=f"sqlite:///{_HOME}/airflow.db",
)


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    """A real Redis on a free port, with nothing in it."""
    from runqy_sandbox.process.child import Child
    from runqy_sandbox.process.net import free_port
    from runqy_sandbox.process.watchdog import Guardian
    from runqy_sandbox.redis_server import redis_program

    directory = tmp_path_factory.mktemp("redis")
    port = free_port()
    guardian = Guardian()
    program = redis_program(port, directory, appendonly=False)
    child = Child(program, directory / "redis.log", guardian)
    child.start()
    child.port = port  # type: ignore[attr-defined]
    yield child
    child.stop()
    guardian.close()


@pytest.fixture(scope="session")
def redis_url(redis_server: Child) -> str:
    """Where that Redis is."""
    return f"redis://127.0.0.1:{redis_server.port}/0"  # type: ignore[attr-defined]


@pytest.fixture
def redis_settings(redis_server: Child) -> RedisSettings:
    """How to reach that Redis."""
    from runqy_provider.connections import RedisSettings

    port = redis_server.port  # type: ignore[attr-defined]
    return RedisSettings(
        "redis_default",
        f"127.0.0.1:{port}/0",
        (("host", "127.0.0.1"), ("port", port), ("db", 0)),
    )


@pytest.fixture
def nowhere() -> RedisSettings:
    """A Redis that is away."""
    from runqy_provider.connections import RedisSettings
    from runqy_sandbox.process.net import free_port

    port = free_port()
    return RedisSettings(
        "redis_default",
        f"127.0.0.1:{port}/0",
        (("host", "127.0.0.1"), ("port", port)),
    )


@pytest.fixture
def conn_id() -> str:
    """A connection of the test's own: its keys are its own, too."""
    return f"runqy_{uuid.uuid4().hex}"
