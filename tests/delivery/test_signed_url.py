"""PUT to a signed URL: retries, and when the URL has expired."""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING

import pytest

from runqy_delivery import DeliveryRequest, DeliveryUndeliverable, delivers
from runqy_delivery._retry import RETRY_FOR_VARIABLE
from tests.delivery.helpers import EXPIRED_BODIES, s3_payload

if TYPE_CHECKING:
    from tests.delivery.helpers import HttpServer

pytestmark = pytest.mark.usefixtures("_no_store_clients")


def test_put_unavailable_store_is_retried_with_whole_body(server: HttpServer) -> None:
    server.responses = [(503, {}, b"SlowDown"), (200, {}, b"")]

    delivers(lambda _payload: b"abc")(s3_payload(server, webhook=False))

    assert [put.body for put in server.requests] == [b"abc", b"abc"]


def test_signed_url_s3_request_timeout_is_retried(server: HttpServer) -> None:
    timeout = b"<Error><Code>RequestTimeout</Code></Error>"
    server.responses = [(400, {}, timeout), (200, {}, b"")]
    request = DeliveryRequest(
        "d-1",
        sink="s3",
        bucket="b",
        key="k",
        put_url=f"{server.url}/b/k?X-Amz-Signature=SECRET",
    )

    delivers(lambda _payload: 1)(request.to_fields())

    assert [put.method for put in server.requests] == ["PUT", "PUT"]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (
            "X-Amz-Date=20240102T030405Z&X-Amz-Expires=60&X-Amz-Signature=SECRET",
            "expired at 2024-01-02 03:05:05 UTC",
        ),
        (
            "X-Goog-Date=20240102T030405Z&X-Goog-Expires=60&X-Goog-Signature=SECRET",
            "expired at 2024-01-02 03:05:05 UTC",
        ),
        ("se=2024-01-02T03%3A04%3A05Z&sig=SECRET", "expired at 2024-01-02 03:04:05"),
        ("Expires=1704164645&Signature=SECRET", "expired at 2024-01-02 03:04:05"),
        ("se=2124-01-02T03%3A04%3A05Z&sig=SECRET", "valid until 2124-01-02 03:04:05"),
        ("se=whenever&sig=SECRET", "has expired, or its signer"),
        ("X-Amz-Date=20240102T030405Z&sig=SECRET", "has expired, or its signer"),
    ],
)
def test_put_refused_url_raises_with_its_expiry(
    server: HttpServer, query: str, message: str
) -> None:
    server.responses = [(403, {}, b"<Code>AccessDenied</Code>")]
    put_url = f"{server.url}/results/renders/d-1?{query}"

    with pytest.raises(DeliveryUndeliverable, match=message) as caught:
        delivers(lambda _payload: 1)(s3_payload(server, webhook=False, put_url=put_url))
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize("body", EXPIRED_BODIES)
def test_put_expired_code_with_status_400_is_recognized(
    server: HttpServer, body: str
) -> None:
    server.responses = [(400, {}, body.encode())]
    query = "X-Goog-Date=20240102T030405Z&X-Goog-Expires=60&X-Goog-Signature=SECRET"
    payload = s3_payload(
        server, webhook=False, put_url=f"{server.url}/results/renders/d-1?{query}"
    )

    with pytest.raises(DeliveryUndeliverable, match="expired at 2024-01-02 03:05:05"):
        delivers(lambda _payload: 1)(payload)


def test_put_other_code_with_status_400_is_not_an_expiry(server: HttpServer) -> None:
    server.responses = [
        (400, {}, b"<Error><Code>InvalidDigest</Code>ExpiredToken</Error>")
    ]

    with pytest.raises(DeliveryUndeliverable) as caught:
        delivers(lambda _payload: 1)(s3_payload(server, webhook=False))
    assert str(caught.value).endswith("ExpiredToken</Error>")


@pytest.mark.parametrize("status", [501, 307])
def test_put_store_without_if_none_match_names_the_option(
    server: HttpServer, status: int
) -> None:
    server.responses = [(status, {"Location": server.url}, b"<Error/>")]
    payload = s3_payload(server, webhook=False, put_headers={"If-None-Match": "*"})

    with pytest.raises(DeliveryUndeliverable, match="once=false"):
        delivers(lambda _payload: 1)(payload)


def test_put_not_implemented_without_if_none_match_names_no_option(
    server: HttpServer,
) -> None:
    server.responses = [(501, {}, b"<Error/>")]

    with pytest.raises(DeliveryUndeliverable) as caught:
        delivers(lambda _payload: 1)(s3_payload(server, webhook=False))
    assert "once=false" not in str(caught.value)


def test_put_connection_closed_after_expiry_is_not_retried(
    server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store refuses the URL at once; its response is lost while a body is sent."""
    monkeypatch.setenv(RETRY_FOR_VARIABLE, "300")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        closed: list[bool] = []

        def refuse() -> None:
            connection, _ = listener.accept()
            connection.recv(1000)
            response = b"HTTP/1.1 403 Forbidden\r\nConnection: close\r\n\r\n"
            connection.sendall(response)
            connection.close()
            closed.append(True)

        thread = threading.Thread(target=refuse)
        thread.start()
        payload = s3_payload(server, webhook=False)
        port = listener.getsockname()[1]
        payload["delivery"]["put_url"] = (
            f"http://127.0.0.1:{port}/b/k?se=2024-01-02T03%3A04%3A05Z&sig=SECRET"
        )
        delivers(lambda _payload: b"x" * 50_000_000)(payload)
        thread.join(10)
    failure = server.requests[-1].json()
    assert "expired at 2024-01-02" in failure["error"]["message"]
    assert closed == [True]
