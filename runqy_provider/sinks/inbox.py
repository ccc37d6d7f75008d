# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""What all sinks that use the inbox share: is it set up, how to wait, how to open."""

from __future__ import annotations

import ipaddress
import logging
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from runqy_delivery.wire import FAILED
from runqy_provider.errors import Misconfigured
from runqy_provider.inbox import callback_url as capability
from runqy_provider.inbox import keys
from runqy_provider.inbox.check import check_inbox
from runqy_provider.inbox.reader import InboxReader
from runqy_provider.inbox.source import InboxArrivals
from runqy_provider.sinks.result import Parcel
from runqy_provider.waiters.source import Place
from runqy_provider.waiters.waiter import Waiter

if TYPE_CHECKING:
    from runqy_provider.connections import RedisSettings
    from runqy_provider.context import Access
    from runqy_provider.sinks.base import Follow

log = logging.getLogger(__name__)

SCHEME = "inbox://"


def is_in_inbox(where: str) -> bool:
    """True for the address of a delivery in the inbox."""
    return where.startswith(SCHEME)


def missing(access: Access) -> str | None:
    """Say what keeps a webhook from working; None where nothing does."""
    settings = access.settings
    conn_id = settings.conn_id
    if not (settings.callback_url or access.base_url):
        return (
            f"Connection {conn_id!r} has no callback_url, and Airflow's [api] base_url "
            "is not a whole URL with a host: workers would not know where to deliver. "
            "Set callback_url to "
            "the receiver's address as workers reach it, such as "
            "https://airflow.example.com/runqy."
        )
    if not settings.callback_secrets:
        return (
            f"Connection {conn_id!r} has no callback_secret: anybody could deliver. "
            "Set one: openssl rand -hex 32."
        )
    if "/" in conn_id:
        return (
            f"Connection id {conn_id!r} has a slash, which cannot stand in a callback "
            "address. Rename the connection."
        )
    return _no_redis(access) if access.redis is None else None


def warn_of_loopback(access: Access) -> None:
    """Log a warning where workers elsewhere would deliver to themselves."""
    settings = access.settings
    url = settings.callback_url or access.base_url
    if url and _is_loopback(url) and not _is_loopback(settings.server_url):
        log.warning(
            "Deliveries go to %s, which is this machine only, while runqy is at %s: "
            "its workers would not reach it. Set callback_url of connection %r.",
            url,
            settings.server_url,
            settings.conn_id,
        )


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def inbox_redis(access: Access) -> RedisSettings:
    """Return the inbox's Redis.

    Raises:
        Misconfigured: There is none.
    """
    if access.redis is None:
        raise Misconfigured(_no_redis(access))
    return access.redis


def _no_redis(access: Access) -> str:
    settings = access.settings
    return (
        f"Redis connection {settings.redis_conn_id!r}, named by connection "
        f"{settings.conn_id!r}, does not exist: deliveries wait there."
    )


def check(access: Access) -> None:
    """Find out whether deliveries can be stored and read; see ``check_inbox``."""
    check_inbox(inbox_redis(access), access.settings.conn_id)


def webhook_url(access: Access, delivery_id: str, expires: float) -> str:
    """Return the capability URL of one delivery."""
    words = missing(access)
    if words is not None:
        raise Misconfigured(words)
    settings = access.settings
    return capability.url(
        settings.callback_url or access.base_url or "",
        settings.callback_secrets[0],
        settings.conn_id,
        delivery_id,
        int(expires),
    )


def where(access: Access, delivery_id: str, box: str | None = None) -> str:
    """Return the address of a delivery in the inbox.

    Args:
        access: What is known of the connection.
        delivery_id: Which.
        box: Where it comes to; the connection's own where not given.
    """
    return f"{SCHEME}{box or access.settings.conn_id}/{delivery_id}"


def place(
    access: Access,
    delivery_id: str,
    box: str | None = None,
    *,
    is_essential: bool = True,
    takes_results: bool = True,
) -> Place:
    """Return where a delivery comes to the inbox.

    Args:
        access: What is known of the connection.
        delivery_id: Which.
        box: Where it comes to; the connection's own where not given.
        is_essential: See ``Place``.
        takes_results: False for progress and failures only.
    """
    redis, box = inbox_redis(access), box or access.settings.conn_id

    def make() -> Waiter:
        source = InboxArrivals(redis, box, takes_results=takes_results)
        return Waiter(source, access.inbox_sweep)

    key = ("inbox", box, redis, takes_results)
    return Place(key, make, delivery_id, is_essential)


def open_letter(access: Access, where: str, follow: Follow) -> Parcel:
    """Open a delivery in the inbox.

    Args:
        access: What is known of the connection.
        where: ``inbox://conn_id/delivery_id``, or, out of a message queue,
            ``inbox://amqp/amqp_conn_id/queue/delivery_id``.
        follow: Opens a result that lies elsewhere; gets the delivery and its URL.

    Raises:
        Misconfigured: It came through another runqy connection.
        TooLarge: It is larger than ``access.largest_read``.
    """
    box, _, delivery_id = where.removeprefix(SCHEME).rpartition("/")
    if box != access.settings.conn_id and not keys.is_queue_box(box):
        raise Misconfigured(
            f"{where} was delivered through connection {box!r}; it cannot be read "
            f"through {access.settings.conn_id!r}."
        )
    with InboxReader(inbox_redis(access), box) as reader:
        letter = reader.read(delivery_id, access.largest_read)
    delivery = letter.delivery
    if delivery.status != FAILED and delivery.result_url is not None:
        return follow(delivery, delivery.result_url)
    return Parcel.of_delivery(delivery, where, letter.delivered_at)


def looked_in(access: Access, delivery_id: str) -> str:
    """Say where in the inbox a delivery was looked for, and what to check."""
    redis, conn_id = inbox_redis(access), access.settings.conn_id
    base = access.settings.callback_url or access.base_url
    return (
        f"No webhook came to {base}/{conn_id}/v1/deliveries/{delivery_id}: the inbox "
        f"(Redis at {redis.address}, key {keys.delivery(conn_id, delivery_id)}) has "
        "nothing. Check that workers reach that address, and the log of the task code"
    )


def forget(access: Access, where: str) -> None:
    """Let a delivery whose value was read expire soon; elsewhere: nothing to do."""
    if not where.startswith(SCHEME):
        return
    box, _, delivery_id = where.removeprefix(SCHEME).rpartition("/")
    with InboxReader(inbox_redis(access), box) as reader:
        reader.forget(delivery_id)
