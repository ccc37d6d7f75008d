"""Delivery to a queue of a real RabbitMQ.

Where the far side is alone, as on a GPU box without pika, there is nothing to test.
"""

from __future__ import annotations

import json
import re
import socket
import sys
import time
import traceback
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from runqy_delivery import DeliveryRequest, DeliveryUndeliverable, delivers
from runqy_delivery._retry import RETRY_FOR_VARIABLE
from runqy_delivery.sinks.amqp import URL_VARIABLE

pytest.importorskip("pika")
if TYPE_CHECKING:
    from collections.abc import Iterator

    from devtools.servers.rabbitmq import RabbitMQ


@pytest.fixture(scope="module")
def rabbitmq() -> Iterator[RabbitMQ]:
    from devtools.servers.rabbitmq import running_rabbitmq

    with running_rabbitmq() as rabbitmq:
        yield rabbitmq


@pytest.fixture
def queue(rabbitmq: RabbitMQ) -> str:
    name = f"q-{uuid.uuid4().hex}"
    with rabbitmq.connect() as connection:
        connection.channel().queue_declare(name)
    return name


def deliver(queue: str) -> None:
    address = {"exchange": "", "routing_key": queue}
    request = DeliveryRequest("d-1", sink="amqp", amqp=address)
    delivers(lambda _payload: 1)(request.to_fields())


def messages(rabbitmq: RabbitMQ, queue: str) -> list[Any]:
    with rabbitmq.connect() as connection:
        channel = connection.channel()
        found = []
        while (got := channel.basic_get(queue, auto_ack=True))[0] is not None:
            found.append(json.loads(got[2])["result"])
        return found


class Names:
    """The machine's resolver of names, which fails as often as it is told."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self._resolve = socket.getaddrinfo

    def resolve(self, *arguments: Any, **more: Any) -> Any:
        if self.failures:
            self.failures -= 1
            raise socket.gaierror(-3, "Temporary failure in name resolution")
        return self._resolve(*arguments, **more)


def test_a_name_that_is_not_resolved_just_now_is_tried_again(
    rabbitmq: RabbitMQ, queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = Names(failures=2)
    monkeypatch.setattr(socket, "getaddrinfo", names.resolve)
    monkeypatch.setenv(URL_VARIABLE, rabbitmq.url)

    deliver(queue)

    assert names.failures == 0
    assert messages(rabbitmq, queue) == [1]


def test_a_name_that_is_never_resolved_raises_with_words(
    queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = Names(failures=sys.maxsize)
    monkeypatch.setattr(socket, "getaddrinfo", names.resolve)
    monkeypatch.setenv(URL_VARIABLE, "amqp://guest:SECRET@broker/%2F")
    monkeypatch.setenv(RETRY_FOR_VARIABLE, "0.1")

    with pytest.raises(DeliveryUndeliverable, match=r"gaierror: .+ name res") as caught:
        deliver(queue)
    assert "at broker:5672 was tried" in str(caught.value)
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize(
    "login", ["guest:SECRET", "guest:5/SECRET", "guest:x@SECRET/y", "guest:[#SECRET"]
)
def test_a_login_that_the_broker_refuses_is_not_shown(
    rabbitmq: RabbitMQ, queue: str, login: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = f"127.0.0.1:{rabbitmq.port}"
    monkeypatch.setenv(URL_VARIABLE, f"amqp://{login}@{at}/%2F")

    with pytest.raises(DeliveryUndeliverable, match="was refused: Probable") as caught:
        deliver(queue)
    assert f"at {at} was refused" in str(caught.value)
    assert "SECRET" not in str(caught.value)


def test_a_queue_that_is_not_there_raises_at_once(
    rabbitmq: RabbitMQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(URL_VARIABLE, rabbitmq.url)
    monkeypatch.setenv(RETRY_FOR_VARIABLE, "300")

    with pytest.raises(DeliveryUndeliverable, match="was refused: UnroutableError"):
        deliver("nobody-declared-this")


@pytest.mark.parametrize(
    "url",
    [
        "SECRET",
        "http://guest:SECRET@broker/",
        "amqp://guest:SECRET",
        "amqp://guest:x@broker:SECRET/",
        "amqp://guest:SECRET@broker:99999/",
        "amqp://guest:SECRET@[broker/",
        "amqp://guest:SECRET@broker/?heartbeat=SECRET",
        "amqp://guest:SECRET@broker/?color=SECRET",
        "amqp://guest:x@broker/?tcp_options={SECRET",
        "amqp://guest:x@broker/?ssl_options={'cafile': '/no/SECRET'}",
        "amqp://guest:x@broker/?ssl_options=['SECRET']",
        "amqp://guest:SEC@RET?x@broker/",
    ],
)
def test_a_url_that_cannot_be_used_raises_and_is_not_repeated(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(URL_VARIABLE, url)
    monkeypatch.setenv(RETRY_FOR_VARIABLE, "300")

    with pytest.raises(DeliveryUndeliverable, match=f"{URL_VARIABLE} cannot") as caught:
        deliver("q")
    lines = traceback.format_exception_only(caught.type, caught.value)
    assert "SEC" not in "".join(lines)
    assert caught.value.__cause__ is None


def _publish_of_the_docs() -> Any:
    page = Path(__file__).parents[2] / "docs" / "task-code.md"
    code = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
    blocks = code.findall(page.read_text())
    (block,) = (one for one in blocks if "def publish(" in one)
    names: dict[str, Any] = {}
    exec(compile(block, "docs", "exec"), names)  # noqa: S102 - our own docs
    return names["publish"]


def _use(connection: Any, channel: Any, queue: str) -> None:
    # The first write may still go into a connection that the broker has closed.
    for _ in range(3):
        channel.basic_publish("", queue, b'{"result": 0}')
        connection.process_data_events()


def test_results_far_apart_arrive_though_the_broker_closes_idle_connections(
    rabbitmq: RabbitMQ, queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pika

    url = f"{rabbitmq.url}?heartbeat=1"
    monkeypatch.setenv(URL_VARIABLE, url)
    publish = _publish_of_the_docs()
    kept = pika.BlockingConnection(pika.URLParameters(url))
    channel = kept.channel()

    deliver(queue)
    publish(url, queue, b'{"result": 2}')
    # The broker closes it after two heartbeats that did not come.
    time.sleep(4)
    with pytest.raises(pika.exceptions.AMQPError):
        _use(kept, channel, queue)
    deliver(queue)
    publish(url, queue, b'{"result": 2}')

    found = [result for result in messages(rabbitmq, queue) if result]
    assert found == [1, 2, 1, 2]
