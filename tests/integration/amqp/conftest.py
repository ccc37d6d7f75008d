"""A real RabbitMQ, and a stack whose task code publishes to it."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest

from devtools.servers.rabbitmq import RabbitMQ, running_rabbitmq
from tests.support.stack import Stack, example_code, make_stack

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pika.adapters.blocking_connection import BlockingChannel


@pytest.fixture(scope="package")
def rabbitmq() -> Iterator[RabbitMQ]:
    with running_rabbitmq() as rabbitmq:
        yield rabbitmq


@pytest.fixture(scope="package")
def stack(
    rabbitmq: RabbitMQ, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    environment = {
        "RUNQY_DELIVERY_AMQP_URL": rabbitmq.url,
        "RUNQY_DELIVERY_RETRY_FOR": "20",
        "RABBITMQ_URL": rabbitmq.url,
    }
    folder = tmp_path_factory.mktemp("task_code")
    more = example_code("guide_amqp", "resize")
    with make_stack(folder, environment, more) as stack:
        yield stack


@pytest.fixture(autouse=True)
def mq_connection(rabbitmq: RabbitMQ, monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow's connections to that broker."""
    for conn_id in ("MQ", "RABBITMQ_DEFAULT"):
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id}", rabbitmq.url)


@pytest.fixture
def queue() -> str:
    """A queue of the test's own."""
    return f"q-{uuid.uuid4().hex}"


@pytest.fixture
def channel(rabbitmq: RabbitMQ) -> Iterator[BlockingChannel]:
    """A channel of the test's own, which waits for the broker's confirmation."""
    connection = rabbitmq.connect()
    channel = connection.channel()
    channel.confirm_delivery()
    yield channel
    if connection.is_open:
        connection.close()
