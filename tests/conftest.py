"""Fixtures that all tests share; a server starts when a test first needs it."""

from __future__ import annotations

import copy
import json
import os
import tempfile
import uuid
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping
    from pathlib import Path

    from runqy_provider.redis_connection import RedisConnection
    from tests.support.stack import Gate, Stack

# Airflow reads AIRFLOW_HOME when it is first imported, before any fixture runs.
_HOME = tempfile.mkdtemp(prefix="runqy-tests-")
os.environ.update(
    AIRFLOW_HOME=_HOME,
    AIRFLOW__CORE__LOAD_EXAMPLES="False",
    AIRFLOW__CORE__UNIT_TEST_MODE="False",
    AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=f"sqlite:///{_HOME}/airflow.db",
)


#: Files and folders whose tests share servers, or are all of ``tests/e2e``: each group
#: runs in one process, the longest first. More than two Airflows at once would overload
#: a laptop.
GROUPS = (
    ("tests/e2e/test_airflow_version.py", "tests/e2e/test_faults.py"),
    ("tests/e2e/",),
    ("tests/integration/page/",),
    ("tests/integration/object_store/",),
    ("tests/integration/amqp/", "tests/integration/combined/"),
    ("tests/integration/inbox/",),
    ("tests/integration/sql/",),
    ("tests/contracts/",),
    ("tests/integration/batch/",),
    ("tests/conformance/", "tests/sandbox/"),
    ("tests/delivery/",),
    ("tests/unit/",),
)


def _group(nodeid: str) -> int:
    """Return the number of the group that a test is in; that of all others is last."""
    found = (number for number, paths in enumerate(GROUPS) if nodeid.startswith(paths))
    return next(found, len(GROUPS))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the groups: the files that are in none run beside them."""
    items.sort(key=lambda item: _group(item.nodeid))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give the tests of a group, or of a file that is in none, to one process."""
    if config.getoption("dist") != "loadfile":
        return None

    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):  # type: ignore[misc] # it has no types
        def _split_scope(self, nodeid: str) -> str:
            number = _group(nodeid)
            if number < len(GROUPS):
                return GROUPS[number][0]
            return str(super()._split_scope(nodeid))

    return Scheduling(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[
    None, pytest.TestReport, pytest.TestReport
]:
    """Escape half characters in what a test wrote: parallel tests send it as UTF-8."""
    report = yield
    report.sections = [
        (name, text.encode(errors="backslashreplace").decode())
        for name, text in report.sections
    ]
    return report


@pytest.fixture(scope="session")
def redis_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a real Redis, which is empty at first."""
    from runqy_sandbox.process.child import Child
    from runqy_sandbox.process.net import free_port
    from runqy_sandbox.process.watchdog import Watchdog
    from runqy_sandbox.redis_server import redis_program

    directory = tmp_path_factory.mktemp("redis")
    port = free_port()
    watchdog = Watchdog()
    program = redis_program(port, directory, appendonly=False)
    child = Child(program, directory / "redis.log", watchdog)
    child.start()
    yield port
    child.stop()
    watchdog.close()


@pytest.fixture(scope="session")
def redis_url(redis_port: int) -> str:
    """The URL of the Redis of these tests."""
    return f"redis://127.0.0.1:{redis_port}/0"


@pytest.fixture
def redis_settings(redis_port: int) -> RedisConnection:
    """The connection to the Redis of these tests."""
    from runqy_provider.redis_connection import RedisConnection

    return RedisConnection(
        "redis_default",
        f"127.0.0.1:{redis_port}/0",
        (("host", "127.0.0.1"), ("port", redis_port), ("db", 0)),
    )


@pytest.fixture
def unreachable_redis() -> RedisConnection:
    """A connection to a Redis that does not run."""
    from runqy_provider.redis_connection import RedisConnection
    from runqy_sandbox.process.net import free_port

    port = free_port()
    return RedisConnection(
        "redis_default",
        f"127.0.0.1:{port}/0",
        (("host", "127.0.0.1"), ("port", port)),
    )


@pytest.fixture
def conn_id() -> str:
    """A connection id that only this test uses, and so its keys in Redis."""
    return f"runqy_{uuid.uuid4().hex}"


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The sandbox and a receiver."""
    from tests.support.stack import make_stack

    with make_stack(tmp_path_factory.mktemp("task_code")) as stack:
        yield stack


@pytest.fixture
def connect(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., dict[str, dict[str, Any]]]:
    """Give Airflow the stack's connections; call it to change runqy_default."""
    from tests.support.caches import clear_clients, clear_settings

    def connect(
        *,
        without: tuple[str, ...] = (),
        fields: Mapping[str, Any] | None = None,
        **extra: Any,
    ) -> dict[str, dict[str, Any]]:
        connections: dict[str, dict[str, Any]] = copy.deepcopy(stack.connections)
        runqy = connections["runqy_default"]
        runqy.update(fields or {})
        runqy["extra"].update(extra)
        for name in without:
            runqy["extra"].pop(name, None)
        for conn_id, connection in connections.items():
            name = f"AIRFLOW_CONN_{conn_id.upper()}"
            monkeypatch.setenv(name, json.dumps(connection))
        clear_settings()
        clear_clients()
        return connections

    connect()
    return connect


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    """Hold a job until the test opens the gate; it opens at the test's end."""
    from tests.support.stack import Gate

    gate = Gate(tmp_path / "gate")
    yield gate
    gate.open()


@pytest.fixture
def no_settling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Resume tasks at once: these tests have no scheduler to wait for."""
    monkeypatch.setenv("AIRFLOW__RUNQY__SETTLE_SECONDS", "0")


@pytest.fixture
def short_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    """List objects every 0.3 seconds."""
    monkeypatch.setenv("AIRFLOW__RUNQY__OBJECT_SWEEP_SECONDS", "0.3")


@pytest.fixture
def short_watch_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the job monitor poll every 0.3 s, and report a vanished job after 0.6 s."""
    monkeypatch.setenv("AIRFLOW__RUNQY__WATCH_SECONDS", "0.3")
    monkeypatch.setenv("AIRFLOW__RUNQY__VANISHED_GRACE_SECONDS", "0.6")
