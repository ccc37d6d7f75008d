"""The sandbox, a receiver that stands alone, and Airflow's connections to both."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from runqy_provider import context as access
from runqy_provider.sinks.object_store.clients import forget_clients
from tests.support.stack import Gate, World, make_world

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with make_world(tmp_path_factory.mktemp("task_code")) as world:
        yield world


Connect = "Callable[..., dict[str, dict[str, Any]]]"


@pytest.fixture
def connect(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., dict[str, dict[str, Any]]]:
    """Give Airflow the connections, with changes to the fields of runqy_default."""

    def connect(
        *,
        without: tuple[str, ...] = (),
        fields: Mapping[str, Any] | None = None,
        **extra: Any,
    ) -> dict[str, dict[str, Any]]:
        connections = json.loads(json.dumps(world.connections))
        runqy = connections["runqy_default"]
        runqy.update(fields or {})
        runqy["extra"].update(extra)
        for name in without:
            runqy["extra"].pop(name, None)
        for conn_id, connection in connections.items():
            name = f"AIRFLOW_CONN_{conn_id.upper()}"
            monkeypatch.setenv(name, json.dumps(connection))
        access._remembered.clear()
        forget_clients()
        return connections

    connect()
    return connect


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    """Let a test say when its job goes on; at its end at the latest."""
    gate = Gate(tmp_path / "gate")
    yield gate
    gate.open()


@pytest.fixture
def no_settling(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no scheduler here that could mistake a quick resume."""
    monkeypatch.setenv("AIRFLOW__RUNQY__SETTLE_SECONDS", "0")


@pytest.fixture
def quick_sweeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Listings come soon after one another."""
    monkeypatch.setenv("AIRFLOW__RUNQY__OBJECT_SWEEP_SECONDS", "0.3")
