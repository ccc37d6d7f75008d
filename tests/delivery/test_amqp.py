"""Delivery to a message queue, if pika or the broker's URL is missing."""

from __future__ import annotations

import sys
import types
from typing import TYPE_CHECKING, Any

import pytest

from runqy_delivery import DeliveryRequest, DeliveryUndeliverable, delivers
from runqy_delivery.sinks.amqp import URL_VARIABLE

if TYPE_CHECKING:
    from tests.delivery.helpers import HttpServer


@delivers
def handle(_payload: Any) -> int:
    return 1


def payload(**fields: Any) -> dict[str, Any]:
    destination = {"exchange": "", "routing_key": "task_results"}
    return DeliveryRequest("d-1", sink="amqp", amqp=destination, **fields).to_fields()


def test_publish_without_pika_names_the_package(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "pika", None)
    monkeypatch.setitem(sys.modules, "pika.exceptions", None)

    with pytest.raises(DeliveryUndeliverable, match=r"add it to the requirements\.txt"):
        handle(payload())


def test_publish_without_broker_url_names_the_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("pika", "pika.exceptions"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.delenv(URL_VARIABLE, raising=False)

    with pytest.raises(DeliveryUndeliverable, match=f"{URL_VARIABLE} is not set"):
        handle(payload())


def test_notify_amqp_error_is_only_logged(
    server: HttpServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setitem(sys.modules, "pika.exceptions", None)
    request = DeliveryRequest(
        "d-1",
        sink="webhook",
        url="inbox://runqy_default/d-1",
        webhook_url=f"{server.url}/hook",
        amqp={"exchange": "", "routing_key": "notifications"},
    )
    handle(request.to_fields())

    assert server.requests[0].json()["result"] == 1
    assert "Could not notify the amqp: " in caplog.text
