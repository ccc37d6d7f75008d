"""Signatures: what we sign we verify, and nothing else."""

from __future__ import annotations

import base64
import random
from typing import TYPE_CHECKING, Any

import pytest

from runqy_delivery.errors import VerificationError
from runqy_delivery.signature import TOLERANCE, decode_secret, sign, verify
from runqy_delivery.sinks import webhook

if TYPE_CHECKING:
    from conftest import Server

SECRET = "whsec_" + base64.b64encode(b"a secret of ours").decode()
OLD = "whsec_" + base64.b64encode(b"the one before").decode()
NOW = 1_800_000_000


def test_what_is_signed_is_verified() -> None:
    headers = sign(SECRET, "msg_1", NOW, b"body")

    assert verify([SECRET], headers, b"body", NOW + 10) == "msg_1"


def test_a_known_signature_is_reproduced() -> None:
    """Worked out apart from our code, with hmac over msg_1.1800000000.BODY."""
    expected = "v1,VFjsIU7XX7hdmNCmhMFWeyWM5e6Q2ijxMbQE38N4QOM="

    assert sign(SECRET, "msg_1", NOW, b'{"a":1}')["webhook-signature"] == expected


@pytest.mark.parametrize("secrets", [[SECRET, OLD], [OLD, SECRET]])
def test_old_secrets_hold_while_they_are_rotated(secrets: list[str]) -> None:
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
def test_what_was_changed_is_refused(
    change: dict[str, str], body: bytes, now: int
) -> None:
    headers = {**sign(SECRET, "msg_1", NOW, b"body"), **change}

    with pytest.raises(VerificationError):
        verify([SECRET], headers, body, now)


def test_no_secret_fits_nothing() -> None:
    with pytest.raises(VerificationError):
        verify([], sign(SECRET, "msg_1", NOW, b"body"), b"body", NOW)


def test_whatever_comes_only_one_error_leaves() -> None:
    """A property over made-up headers and bodies, with a seed that is printed."""
    seed = random.randrange(2**32)
    chance = random.Random(seed)

    def text() -> str:
        return "".join(chr(chance.randrange(0x500)) for _ in range(chance.randrange(9)))

    for _ in range(2000):
        headers = {
            "webhook-id": text(),
            "webhook-timestamp": chance.choice([text(), str(NOW)]),
            "webhook-signature": chance.choice(["v1,", ""]) + text(),
        }
        with pytest.raises(VerificationError):
            verify([SECRET], headers, chance.randbytes(8), NOW)


@pytest.mark.parametrize("secret", ["", "whsec_", "not base64!", "whsec_ü"])
def test_a_secret_that_cannot_be_read_is_not_repeated(secret: str) -> None:
    with pytest.raises(ValueError, match="not of the form") as caught:
        decode_secret(secret)
    assert not secret or secret == "whsec_" or secret not in str(caught.value)


def test_a_webhook_is_signed_where_the_environment_has_a_secret(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(webhook.SIGNING_SECRET_VARIABLE, SECRET)

    webhook.post(f"{server.url}/x", "d-1", b'{"a":1}')

    seen: Any = server.seen[0]
    stamp = int(seen.headers["webhook-timestamp"])
    assert verify([SECRET], seen.headers, seen.body, stamp) == "d-1"
