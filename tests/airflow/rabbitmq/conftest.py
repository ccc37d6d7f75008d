"""A real RabbitMQ, and a world whose task code publishes to it."""

from __future__ import annotations

import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "servers"))

from rabbitmq import RabbitMQ, running_rabbitmq
from world import DAGS, World, make_world

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def rabbitmq() -> Iterator[RabbitMQ]:
    with running_rabbitmq() as rabbitmq:
        yield rabbitmq


@pytest.fixture(scope="session")
def world(
    rabbitmq: RabbitMQ, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    environment = {
        "RUNQY_DELIVERY_AMQP_URL": rabbitmq.url,
        "RUNQY_DELIVERY_RETRY_FOR": "20",
        "RABBITMQ_URL": rabbitmq.url,
    }
    guide = (DAGS / "task_code" / "guide_amqp" / "main.py").read_text()
    folder = tmp_path_factory.mktemp("task_code")
    with make_world(folder, environment, {"guide_amqp": guide}) as world:
        yield world


@pytest.fixture(autouse=True)
def _mq(rabbitmq: RabbitMQ, monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow's connection to that broker."""
    monkeypatch.setenv("AIRFLOW_CONN_MQ", rabbitmq.url)


@pytest.fixture
def queue() -> str:
    """A queue of the test's own."""
    return f"q-{uuid.uuid4().hex}"
