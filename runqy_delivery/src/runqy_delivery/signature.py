# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Sign and verify deliveries by the Standard Webhooks scheme (version 1, symmetric).

The signed text is ``ID.TIMESTAMP.BODY``. The headers are ``webhook-id``,
``webhook-timestamp`` (seconds since 1970) and ``webhook-signature`` (one or more
``v1,BASE64``, separated by spaces). Secrets are base64, with or without ``whsec_``.
For any headers and any bytes, ``verify`` returns or raises ``VerificationError``.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from typing import TYPE_CHECKING

from runqy_delivery.errors import VerificationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

#: By how many seconds the sender's clock may differ from ours, by default.
TOLERANCE = 300

#: The longest timestamp that is accepted, in digits.
MAX_TIMESTAMP_DIGITS = 12

SECRET_PREFIX = "whsec_"  # noqa: S105 - the scheme's prefix, not a secret

#: The shortest key that may sign, in bytes (Standard Webhooks): a shorter one may be
#: guessed.
SHORTEST_KEY = 24

_MAKE_ONE = "Make one: echo whsec_$(openssl rand -base64 32)"


def decode_secret(secret: str) -> bytes:
    """Return the key that a ``whsec_...`` secret encodes.

    Raises:
        ValueError: It is not base64, or the key has fewer than ``SHORTEST_KEY`` bytes.
            The message says how to make one, and does not repeat it.
    """
    text = secret.removeprefix(SECRET_PREFIX)
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not key:
        raise ValueError(
            "The signing secret is not of the form whsec_BASE64 (Standard Webhooks). "
            f"{_MAKE_ONE}"
        )
    if len(key) < SHORTEST_KEY:
        raise ValueError(
            f"The signing secret is a key of {len(key)} bytes, but Standard Webhooks "
            f"asks for at least {SHORTEST_KEY}. {_MAKE_ONE}"
        )
    return key


def sign(secret: str, message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """Return the three headers that sign a body.

    Args:
        secret: The signing secret, ``whsec_...``.
        message_id: Id of the message; it does not change when the message is resent.
        timestamp: Time of signing, in seconds since 1970.
        body: The bytes exactly as they are sent.

    Raises:
        ValueError: The secret is not valid.
    """
    mac = _mac(decode_secret(secret), message_id, str(timestamp), body)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": "v1," + base64.b64encode(mac).decode(),
    }


def verify(
    secrets: Iterable[str],
    headers: Mapping[str, str],
    body: bytes,
    now: float,
    tolerance: float = TOLERANCE,
) -> str:
    """Return the id of a message that was signed with one of the secrets.

    Args:
        secrets: The valid secrets; more than one while a secret is being rotated.
        headers: The request's headers; their names in any case.
        body: The bytes exactly as they were received.
        now: The current time, in seconds since 1970.
        tolerance: By how many seconds the sender's clock may differ from ``now``.

    Raises:
        VerificationError: A header is missing or cannot be read, the timestamp differs
            from ``now`` by more than the tolerance, or no signature matches.
        ValueError: A secret is not valid.
    """
    by_name = {name.lower(): value for name, value in headers.items()}
    message_id = by_name.get("webhook-id", "")
    timestamp = by_name.get("webhook-timestamp", "")
    signatures = by_name.get("webhook-signature", "")
    if not (message_id and timestamp and signatures):
        raise VerificationError(
            "A signed delivery must have the headers webhook-id, webhook-timestamp and "
            "webhook-signature."
        )
    _check_timestamp(timestamp, now, tolerance)
    offered = [_decode_signature(item) for item in signatures.split(" ")]
    is_valid = False
    for secret in secrets:
        expected = _mac(decode_secret(secret), message_id, timestamp, body)
        for signature in offered:
            # No early exit: the duration must not reveal which secret matches.
            is_valid |= hmac.compare_digest(expected, signature)
    if not is_valid:
        raise VerificationError(
            "No signature of this delivery matches a signing secret of the connection."
        )
    return message_id


def _check_timestamp(timestamp: str, now: float, tolerance: float) -> None:
    is_number = timestamp.isascii() and timestamp.isdigit()
    if not is_number or len(timestamp) > MAX_TIMESTAMP_DIGITS:
        raise VerificationError("webhook-timestamp is not a valid number of seconds.")
    if abs(now - int(timestamp)) > tolerance:
        raise VerificationError(
            f"webhook-timestamp differs from this clock by more than {tolerance:g} s. "
            "Synchronize the clocks of both machines."
        )


def _mac(key: bytes, message_id: str, timestamp: str, body: bytes) -> bytes:
    signed = b".".join(
        (message_id.encode("utf-8", "surrogatepass"), timestamp.encode(), body)
    )
    return hmac.new(key, signed, hashlib.sha256).digest()


def _decode_signature(item: str) -> bytes:
    """Return the bytes of one ``v1,BASE64``; none for another version or bad base64."""
    version, _, text = item.partition(",")
    if version != "v1":
        return b""
    try:
        return base64.b64decode(text.encode("ascii", "replace"), validate=True)
    except (binascii.Error, ValueError):
        return b""
