"""Delivery to a message queue, where pika or the broker is missing."""

from __future__ import annotations

import sys
import types
from typing import TYPE_CHECKING, Any

import pytest

from runqy_delivery import DeliveryRequest, DeliveryUndeliverable, delivers
from runqy_delivery.sinks.amqp import URL_VARIABLE

if TYPE_CHECKING:
    from conftest import Server


@delivers
def handle(_payload: Any) -> int:
    return 1


def payload(**fields: Any) -> dict[str, Any]:
    address = {"exchange": "", "routing_key": "task_results"}
    return DeliveryRequest("d-1", sink="amqp", amqp=address, **fields).to_fields()


def test_without_pika_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pika", None)
    monkeypatch.setitem(sys.modules, "pika.exceptions", None)

    with pytest.raises(DeliveryUndeliverable, match=r"add it to the requirements\.txt"):
        handle(payload())


def test_without_the_brokers_address_it_says_where_to_put_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("pika", "pika.exceptions"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.delenv(URL_VARIABLE, raising=False)

    with pytest.raises(DeliveryUndeliverable, match=f"{URL_VARIABLE} is not set"):
        handle(payload())


def test_news_that_the_broker_does_not_take_do_not_undo_the_delivery(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "pika.exceptions", None)
    request = DeliveryRequest(
        "d-1",
        sink="webhook",
        url="inbox://runqy_default/d-1",
        webhook_url=f"{server.url}/bell",
        amqp={"exchange": "", "routing_key": "told"},
    )
    handle(request.to_fields())

    assert server.seen[0].json()["result"] == 1
    assert "The amqp was not told: " in caplog.text
