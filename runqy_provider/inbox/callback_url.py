# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The id of a delivery, and its capability URL: the right to deliver until it expires.

    BASE/CONN_ID/v1/deliveries/DELIVERY_ID?expires=SECONDS&token=TOKEN

The token is an HMAC of connection, delivery and expiry, so that the receiver needs no
table of requests, and no part of the URL can be changed.

A delivery to a channel starts a DAG, instead of ending the wait of a task. The channel
is part of its id, so the token protects it, too.
"""

from __future__ import annotations

import base64
import hmac
import re
import uuid
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

from runqy_provider.errors import Misconfigured

if TYPE_CHECKING:
    from collections.abc import Iterable


#: A valid delivery_id; it becomes part of URLs, Redis keys and object keys.
DELIVERY_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")

_EXPIRES = re.compile(r"[0-9]{1,12}")

_CHANNEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_DELIVERY_ID = re.compile(r"channel--([A-Za-z0-9][A-Za-z0-9_.-]{0,63})--[0-9a-f]{32}")


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


def check_channel(channel: str) -> None:
    """Refuse a name that a delivery id cannot contain.

    Raises:
        Misconfigured: It is such a name.
    """
    if not _CHANNEL.fullmatch(channel) or "--" in channel:
        raise Misconfigured(
            f"{channel!r} is not a valid channel: up to 64 letters, digits, dots, "
            "dashes and underscores, with a letter or digit first, without '--'."
        )


def new_channel_delivery_id(channel: str) -> str:
    """Return the id of a new delivery to a channel.

    Raises:
        Misconfigured: The name of the channel is not valid.
    """
    check_channel(channel)
    return f"channel--{channel}--{uuid.uuid4().hex}"


def channel_of(delivery_id: str) -> str | None:
    """Return the channel of a delivery; None if it is for a task."""
    found = _DELIVERY_ID.fullmatch(delivery_id)
    return None if found is None else found[1]
