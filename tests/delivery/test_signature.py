"""Signatures: signed messages are verified, and all others refused."""

from __future__ import annotations

import base64
import random
from typing import TYPE_CHECKING

import pytest

from runqy_delivery.errors import VerificationError
from runqy_delivery.signature import (
    SHORTEST_KEY,
    TOLERANCE,
    decode_secret,
    sign,
    verify,
)
from runqy_delivery.sinks import webhook

if TYPE_CHECKING:
    from tests.delivery.helpers import HttpServer

SECRET = "whsec_" + base64.b64encode(b"a secret of ours, long enough").decode()
OLD = "whsec_" + base64.b64encode(b"the old secret, long enough").decode()
NOW = 1_800_000_000


def test_verify_signed_message_returns_its_id() -> None:
    headers = sign(SECRET, "msg_1", NOW, b"body")

    assert verify([SECRET], headers, b"body", NOW + 10) == "msg_1"


def test_sign_known_message_has_known_signature() -> None:
    """Computed separately, with hmac over msg_1.1800000000.BODY."""
    expected = "v1,QJh6u2Q/I9nC5mC/Zhy/RVy0JtBoOmwoL2LAQ0wCKTw="

    assert sign(SECRET, "msg_1", NOW, b'{"a":1}')["webhook-signature"] == expected


@pytest.mark.parametrize("secrets", [[SECRET, OLD], [OLD, SECRET]])
def test_verify_old_secret_is_accepted_during_rotation(secrets: list[str]) -> None:
    headers = sign(OLD, "msg_1", NOW, b"body")

    assert verify(secrets, headers, b"body", NOW) == "msg_1"


@pytest.mark.parametrize(
    ("change", "body", "now"),
    [
        ({}, b"other body", NOW),
        ({"webhook-id": "msg_2"}, b"body", NOW),
        ({"webhook-timestamp": str(NOW + 1)}, b"body", NOW),
        ({"webhook-timestamp": "yesterday"}, b"body", NOW),
        ({"webhook-timestamp": "9" * 40}, b"body", NOW),
        ({"webhook-timestamp": "١٢٣"}, b"body", NOW),
        ({"webhook-signature": "v1,!!!"}, b"body", NOW),
        ({"webhook-signature": "v2,AAAA"}, b"body", NOW),
        ({"webhook-signature": "ünï"}, b"body", NOW),
        ({"webhook-signature": ""}, b"body", NOW),
        ({}, b"body", NOW + TOLERANCE + 1),
        ({}, b"body", NOW - TOLERANCE - 1),
    ],
)
def test_verify_changed_message_is_refused(
    change: dict[str, str], body: bytes, now: int
) -> None:
    headers = {**sign(SECRET, "msg_1", NOW, b"body"), **change}

    with pytest.raises(VerificationError):
        verify([SECRET], headers, body, now)


def test_verify_without_secrets_is_refused() -> None:
    with pytest.raises(VerificationError):
        verify([], sign(SECRET, "msg_1", NOW, b"body"), b"body", NOW)


def test_verify_any_input_raises_only_verification_error() -> None:
    """Random headers and bodies; a failure prints the seed."""
    seed = random.randrange(2**32)
    rng = random.Random(seed)

    def text() -> str:
        return "".join(chr(rng.randrange(0x500)) for _ in range(rng.randrange(9)))

    for _ in range(2000):
        headers = {
            "webhook-id": text(),
            "webhook-timestamp": rng.choice([text(), str(NOW)]),
            "webhook-signature": rng.choice(["v1,", ""]) + text(),
        }
        with pytest.raises(VerificationError):
            verify([SECRET], headers, rng.randbytes(8), NOW)


@pytest.mark.parametrize("secret", ["", "whsec_", "not base64!", "whsec_ü"])
def test_decode_secret_invalid_secret_is_not_repeated(secret: str) -> None:
    with pytest.raises(ValueError, match="not of the form") as caught:
        decode_secret(secret)
    assert not secret or secret == "whsec_" or secret not in str(caught.value)


@pytest.mark.parametrize("size", [1, SHORTEST_KEY - 1])
def test_decode_secret_short_key_is_refused_everywhere(size: int) -> None:
    short = "whsec_" + base64.b64encode(b"k" * size).decode()
    signed = sign(SECRET, "msg_1", NOW, b"body")

    for use in (
        lambda: decode_secret(short),
        lambda: sign(short, "msg_1", NOW, b"body"),
        lambda: verify([short], signed, b"body", NOW),
    ):
        with pytest.raises(ValueError, match=f"{size} bytes") as caught:
            use()
        assert "openssl rand" in str(caught.value)
        assert short not in str(caught.value)


@pytest.mark.parametrize("size", [SHORTEST_KEY, 64, 100])
def test_decode_secret_long_key_is_returned(size: int) -> None:
    key = b"k" * size

    assert decode_secret("whsec_" + base64.b64encode(key).decode()) == key


def test_post_with_signing_secret_is_signed(
    server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(webhook.SIGNING_SECRET_VARIABLE, SECRET)

    webhook.post(f"{server.url}/x", "d-1", b'{"a":1}')

    (request,) = server.requests
    now = int(request.headers["webhook-timestamp"])
    assert verify([SECRET], request.headers, request.body, now) == "d-1"
