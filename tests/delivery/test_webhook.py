"""Delivery by webhook: which responses are final, and which are retried."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from runqy_delivery import DeliveryRequest, DeliveryUndeliverable, delivers
from runqy_delivery._http import RETRYABLE_STATUSES
from runqy_delivery._retry import RETRY_FOR_VARIABLE
from runqy_delivery.sinks.webhook import SIGNING_SECRET_VARIABLE
from tests.delivery.helpers import STORED, deliver

if TYPE_CHECKING:
    from tests.delivery.helpers import HttpServer


@pytest.mark.parametrize("status", [400, 413])
def test_webhook_rejected_body_is_a_failure(server: HttpServer, status: int) -> None:
    """A retry by runqy would only have the result rejected again."""
    server.responses = [(status, {}, b"not valid"), (200, {}, STORED)]

    deliver(server, "x" * 100)

    statuses = [request.json()["status"] for request in server.requests]
    assert statuses == ["completed", "failed"]


def test_webhook_rejected_failure_raises(server: HttpServer) -> None:
    server.responses = [(413, {}, b"too large")]

    with pytest.raises(DeliveryUndeliverable):
        deliver(server, "x")


def test_webhook_forbidden_raises_without_token(server: HttpServer) -> None:
    server.responses = [(403, {}, b'{"error": "no"}')]

    with pytest.raises(DeliveryUndeliverable, match="403") as caught:
        deliver(server, 1)
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize("status", [409, 410])
def test_webhook_conflict_or_gone_is_not_retried(
    server: HttpServer, status: int
) -> None:
    server.responses = [(status, {}, b'{"error": "too late"}')]

    deliver(server, 1)

    assert len(server.requests) == 1


def test_webhook_retry_and_conflict_log_no_secret(
    server: HttpServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    server.responses = [(503, {}, b"later"), (409, {}, b'{"error": "another"}')]

    deliver(server, 1)

    assert "retrying in" in caplog.text
    assert "SECRET" not in caplog.text


@pytest.mark.parametrize(
    "response",
    [
        (200, {"Content-Type": "text/html"}, b"<html>Log in</html>"),
        (200, {}, b""),
        (201, {}, b"{}"),
        (200, {}, b'["outcome"]'),
        (409, {}, b"<html>Conflict</html>"),
        (410, {}, b"gone"),
    ],
)
def test_webhook_foreign_response_is_retried(server: HttpServer, response: Any) -> None:
    server.responses = [response, (200, {}, STORED)]
    request = DeliveryRequest("d-1", webhook_url=f"{server.url}/hook")

    delivers(lambda _payload: 1)(request.to_fields())

    assert len(server.requests) == 2


def test_webhook_login_page_raises_with_hint(
    server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(RETRY_FOR_VARIABLE, "0.05")
    server.responses = [(200, {}, b"<html>Log in</html>")]
    request = DeliveryRequest("d-1", webhook_url=f"{server.url}/hook")

    with pytest.raises(DeliveryUndeliverable) as caught:
        delivers(lambda _payload: 1)(request.to_fields())
    assert "the response is not from the receiver" in str(caught.value)
    assert "callback_url" in str(caught.value)


@pytest.mark.parametrize("status", sorted(RETRYABLE_STATUSES))
def test_webhook_retryable_status_is_retried(server: HttpServer, status: int) -> None:
    server.responses = [(status, {}, b"<html>"), (200, {}, STORED)]
    request = DeliveryRequest("d-1", webhook_url=f"{server.url}/hook")

    delivers(lambda _payload: 1)(request.to_fields())

    assert len(server.requests) == 2


@pytest.mark.parametrize("secret", ["whsec_not-base64!", "whsec_c2hvcnQ="])
def test_webhook_invalid_signing_secret_is_an_unsigned_failure(
    server: HttpServer, secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SIGNING_SECRET_VARIABLE, secret)

    delivery = deliver(server, 1)

    assert delivery["status"] == "failed"
    assert "SIGNING_SECRET cannot be used" in delivery["error"]["message"]
    assert "webhook-signature" not in server.requests[0].headers


def test_webhook_invalid_signing_secret_raises_where_signatures_are_required(
    server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SIGNING_SECRET_VARIABLE, "whsec_not-base64!")
    server.responses = [(403, {}, b'{"error": "not valid"}')]

    with pytest.raises(DeliveryUndeliverable, match="SIGNING_SECRET cannot be used"):
        deliver(server, 1)
