"""Delivery to a queue of a real RabbitMQ.

Skipped in the isolated environment, which has no pika.
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
    destination = {"exchange": "", "routing_key": queue}
    request = DeliveryRequest("d-1", sink="amqp", amqp=destination)
    delivers(lambda _payload: 1)(request.to_fields())


def messages(rabbitmq: RabbitMQ, queue: str) -> list[Any]:
    with rabbitmq.connect() as connection:
        channel = connection.channel()
        found = []
        while (got := channel.basic_get(queue, auto_ack=True))[0] is not None:
            found.append(json.loads(got[2])["result"])
        return found


class FlakyResolver:
    """The host name resolver of this machine, which first fails a number of times."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self._resolve = socket.getaddrinfo

    def resolve(self, *args: Any, **kwargs: Any) -> Any:
        if self.failures:
            self.failures -= 1
            raise socket.gaierror(-3, "Temporary failure in name resolution")
        return self._resolve(*args, **kwargs)


def test_publish_temporary_resolver_error_is_retried(
    rabbitmq: RabbitMQ, queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolver = FlakyResolver(failures=2)
    monkeypatch.setattr(socket, "getaddrinfo", resolver.resolve)
    monkeypatch.setenv(URL_VARIABLE, rabbitmq.url)

    deliver(queue)

    assert resolver.failures == 0
    assert messages(rabbitmq, queue) == [1]


def test_publish_permanent_resolver_error_raises(
    queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolver = FlakyResolver(failures=sys.maxsize)
    monkeypatch.setattr(socket, "getaddrinfo", resolver.resolve)
    monkeypatch.setenv(URL_VARIABLE, "amqp://guest:SECRET@broker/%2F")
    monkeypatch.setenv(RETRY_FOR_VARIABLE, "0.1")

    with pytest.raises(DeliveryUndeliverable, match=r"gaierror: .+ name res") as caught:
        deliver(queue)
    assert "at broker:5672 failed" in str(caught.value)
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize(
    "login", ["guest:SECRET", "guest:5/SECRET", "guest:x@SECRET/y", "guest:[#SECRET"]
)
def test_publish_refused_login_is_not_shown(
    rabbitmq: RabbitMQ, queue: str, login: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    location = f"127.0.0.1:{rabbitmq.port}"
    monkeypatch.setenv(URL_VARIABLE, f"amqp://{login}@{location}/%2F")

    with pytest.raises(DeliveryUndeliverable, match="was refused: Probable") as caught:
        deliver(queue)
    assert f"at {location} was refused" in str(caught.value)
    assert "SECRET" not in str(caught.value)


def test_publish_missing_queue_raises_at_once(
    rabbitmq: RabbitMQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(URL_VARIABLE, rabbitmq.url)
    monkeypatch.setenv(RETRY_FOR_VARIABLE, "300")

    with pytest.raises(DeliveryUndeliverable, match="was refused: UnroutableError"):
        deliver("not-declared")


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
def test_publish_invalid_url_raises_and_is_not_repeated(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(URL_VARIABLE, url)
    monkeypatch.setenv(RETRY_FOR_VARIABLE, "300")

    with pytest.raises(
        DeliveryUndeliverable, match=f"{URL_VARIABLE} (cannot be used|is not a valid)"
    ) as caught:
        deliver("q")
    lines = traceback.format_exception_only(caught.type, caught.value)
    assert "SEC" not in "".join(lines)
    assert caught.value.__cause__ is None


def _publish_from_the_docs() -> Any:
    page = Path(__file__).parents[2] / "docs" / "how-to" / "task-code.md"
    code = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
    blocks = code.findall(page.read_text())
    (block,) = (block for block in blocks if "def publish(" in block)
    names: dict[str, Any] = {}
    exec(compile(block, "docs", "exec"), names)  # noqa: S102 - our own docs
    return names["publish"]


def _publish_three_times(connection: Any, channel: Any, queue: str) -> None:
    # The first write may succeed on a connection that the broker has closed.
    for _ in range(3):
        channel.basic_publish("", queue, b'{"result": 0}')
        connection.process_data_events()


def test_publish_after_idle_connection_was_closed_arrives(
    rabbitmq: RabbitMQ, queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pika

    url = f"{rabbitmq.url}?heartbeat=1"
    monkeypatch.setenv(URL_VARIABLE, url)
    publish = _publish_from_the_docs()
    idle = pika.BlockingConnection(pika.URLParameters(url))
    channel = idle.channel()

    deliver(queue)
    publish(url, queue, b'{"result": 2}')
    # The broker closes a connection after two missed heartbeats.
    time.sleep(4)
    with pytest.raises(pika.exceptions.AMQPError):
        _publish_three_times(idle, channel, queue)
    deliver(queue)
    publish(url, queue, b'{"result": 2}')

    found = [result for result in messages(rabbitmq, queue) if result]
    assert found == [1, 2, 1, 2]
