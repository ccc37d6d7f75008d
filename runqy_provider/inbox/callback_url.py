# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The capability URL: the right to put one delivery into the inbox, until it expires.

    BASE/CONN_ID/v1/deliveries/DELIVERY_ID?expires=SECONDS&token=TOKEN

The token is an HMAC of connection, delivery and expiry, so that the receiver needs no
table of requests, and no part of the URL can be changed.
"""

from __future__ import annotations

import base64
import hmac
import re
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

from runqy_provider.errors import Misconfigured

if TYPE_CHECKING:
    from collections.abc import Iterable

#: A valid delivery_id; it becomes part of URLs, Redis keys and object keys.
DELIVERY_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")

_EXPIRES = re.compile(r"[0-9]{1,12}")


def check_delivery_id(delivery_id: str) -> None:
    """Refuse ids that URLs, Redis keys and object keys cannot contain.

    Raises:
        Misconfigured: It is such an id.
    """
    if not DELIVERY_ID.fullmatch(delivery_id):
        raise Misconfigured(
            f"{delivery_id!r} is not a valid delivery_id: up to 128 letters, digits, "
            "dots, dashes and underscores, with a letter or digit first."
        )


def url(base: str, secret: str, conn_id: str, delivery_id: str, expires: int) -> str:
    """Return the URL that one delivery may be POSTed to.

    Args:
        base: The receiver's address.
        secret: The connection's callback secret; the newest during a rotation.
        conn_id: Id of the runqy connection.
        delivery_id: Id of the delivery.
        expires: Until when, in whole seconds since 1970.
    """
    query = urlencode(
        {"expires": expires, "token": token(secret, conn_id, delivery_id, expires)}
    )
    path = f"{quote(conn_id, safe='')}/v1/deliveries/{quote(delivery_id, safe='')}"
    return f"{base}/{path}?{query}"


def token(secret: str, conn_id: str, delivery_id: str, expires: int) -> str:
    """Return the HMAC-SHA256 of connection, delivery and expiry, as URL-safe text."""
    # Unambiguous, as none of the three can contain a line break.
    message = f"runqy-delivery-v1\n{conn_id}\n{delivery_id}\n{expires}"
    mac = hmac.digest(secret.encode(), message.encode(), "sha256")
    return base64.urlsafe_b64encode(mac).rstrip(b"=").decode()


def is_valid(  # noqa: PLR0917 - all six are one request, and none has a default
    secrets: Iterable[str],
    conn_id: str,
    delivery_id: str,
    expires: str,
    offered: str,
    now: float,
) -> bool:
    """Return whether the URL of a request is one of ours and has not expired.

    All secrets are compared, in constant time, even after a match.
    """
    well_formed = bool(
        _EXPIRES.fullmatch(expires) and DELIVERY_ID.fullmatch(delivery_id)
    )
    until = int(expires) if well_formed else 0
    fits = False
    for secret in secrets:
        expected = token(secret, conn_id, delivery_id, until).encode()
        fits |= hmac.compare_digest(expected, offered.encode("utf-8", "replace"))
    return fits and well_formed and now <= until
