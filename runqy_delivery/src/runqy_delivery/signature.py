# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Signatures of deliveries, by the Standard Webhooks scheme (version 1, symmetric).

The signed text is ``ID.TIMESTAMP.BODY``; the headers are ``webhook-id``,
``webhook-timestamp`` (seconds since 1970) and ``webhook-signature`` (one or several
``v1,BASE64`` parted by blanks). Secrets are base64, with or without ``whsec_``.
For any headers and any bytes, verifying returns or raises VerificationError.
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

#: How far the sender's clock may be from ours, in seconds, where nobody says more.
TOLERANCE = 300

SECRET_PREFIX = "whsec_"  # noqa: S105 - the scheme's prefix, not a secret


def decode_secret(secret: str) -> bytes:
    """Return the key that a ``whsec_...`` text stands for.

    Raises:
        ValueError: It is not base64, or empty. The text itself is not repeated.
    """
    text = secret.removeprefix(SECRET_PREFIX)
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not key:
        raise ValueError(
            "The signing secret is not of the form whsec_BASE64 (Standard Webhooks)."
        )
    return key


def sign(secret: str, message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """Return the three headers that sign ``body``.

    Args:
        secret: The signing secret, ``whsec_...``.
        message_id: Id of the message; the same when it is sent again.
        timestamp: Seconds since 1970.
        body: The bytes as they are sent.

    Raises:
        ValueError: The secret cannot be read.
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
    """Return the message's id if one of the secrets signed it.

    Args:
        secrets: The secrets in force; several while one replaces another.
        headers: The request's headers; names in any case.
        body: The bytes as they came.
        now: Seconds since 1970.
        tolerance: How far the sender's clock may be from ours, in seconds.

    Raises:
        VerificationError: A header is missing or unreadable, the timestamp is too far
            off, or no signature fits.
        ValueError: A secret cannot be read.
    """
    given = {name.lower(): value for name, value in headers.items()}
    message_id = given.get("webhook-id", "")
    stamp = given.get("webhook-timestamp", "")
    signatures = given.get("webhook-signature", "")
    if not (message_id and stamp and signatures):
        raise VerificationError(
            "A signed delivery has the headers webhook-id, webhook-timestamp and "
            "webhook-signature."
        )
    if not (stamp.isascii() and stamp.isdigit() and len(stamp) <= 12):  # noqa: PLR2004
        raise VerificationError("webhook-timestamp is not a number of seconds.")
    if abs(now - int(stamp)) > tolerance:
        raise VerificationError(
            f"webhook-timestamp is more than {tolerance:g} s away from this clock."
        )
    offered = [_decode_signature(item) for item in signatures.split(" ")]
    fits = False
    for secret in secrets:
        expected = _mac(decode_secret(secret), message_id, stamp, body)
        for signature in offered:
            # No early exit: how long this takes must not tell which one fits.
            fits |= hmac.compare_digest(expected, signature)
    if not fits:
        raise VerificationError("No signature of this delivery fits a known secret.")
    return message_id


def _mac(key: bytes, message_id: str, stamp: str, body: bytes) -> bytes:
    signed = b".".join(
        (message_id.encode("utf-8", "surrogatepass"), stamp.encode(), body)
    )
    return hmac.new(key, signed, hashlib.sha256).digest()


def _decode_signature(item: str) -> bytes:
    version, _, text = item.partition(",")
    if version != "v1":
        return b""
    try:
        return base64.b64decode(text.encode("ascii", "replace"), validate=True)
    except (binascii.Error, ValueError):
        return b""
