# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""What all sinks that use the inbox share: checks, waiting, opening."""

from __future__ import annotations

import ipaddress
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from runqy_delivery import BadDelivery as WireBadDelivery
from runqy_delivery.wire import FAILED
from runqy_provider.errors import Misconfigured, RunqyError
from runqy_provider.inbox import callback_url, keys
from runqy_provider.inbox.reader import (
    IDS_PER_POLL,
    InboxReader,
    InboxSource,
    write_and_read,
)
from runqy_provider.sinks.result import MANIFEST_TYPE, StoredResult
from runqy_provider.waiters.waiter import Waiter, WaitTarget

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import BinaryIO

    from runqy_provider.inbox.manifest import InboxManifest
    from runqy_provider.inbox.reader import StoredDelivery
    from runqy_provider.redis_connection import RedisConnection
    from runqy_provider.settings import Settings
    from runqy_provider.sinks.result import UrlOpener

log = logging.getLogger(__name__)

#: The end of the URI of a manifest; the id of a delivery cannot have a '#'.
MANIFEST_FRAGMENT = "#manifest"

#: How many bytes larger than its result a delivery may be.
DELIVERY_FIELDS_BYTES = 4096


def is_in_inbox(uri: str) -> bool:
    """Return whether a URI is that of a delivery in the inbox."""
    return uri.startswith(keys.SCHEME)


@dataclass(frozen=True, slots=True)
class _WaiterFactory:
    redis: RedisConnection
    namespace: str
    takes_results: bool
    interval: float

    def __call__(self) -> Waiter:
        source = InboxSource(
            self.redis, self.namespace, takes_results=self.takes_results
        )
        return Waiter(source, self.interval, batch=IDS_PER_POLL)


@dataclass(frozen=True)
class InboxBackend:
    """The inbox of one runqy connection.

    Attributes:
        settings: The connection and the options.
        queue_namespace: Namespace of the messages of a queue; None: that of the
            connection.
    """

    settings: Settings
    queue_namespace: str | None = None

    @property
    def namespace(self) -> str:
        """The part of the inbox that deliveries go to."""
        return self.queue_namespace or self.settings.connection.conn_id

    @property
    def config_error(self) -> str | None:
        """Why webhooks cannot work with this connection; None if they can."""
        connection = self.settings.connection
        conn_id = connection.conn_id
        found = []
        if not self.settings.callback_url:
            found.append(
                f"Connection {conn_id!r} has no callback_url, and Airflow's [api] "
                "base_url is not a whole URL with a host: workers would not know where "
                "to deliver. Set callback_url to the receiver's address as workers "
                "reach it, such as https://airflow.example.com/runqy."
            )
        if not connection.callback_secrets:
            found.append(
                f"Connection {conn_id!r} has no callback_secret, so every client of "
                "the network could deliver results. Set one: openssl rand -hex 32."
            )
        if "/" in conn_id:
            found.append(
                f"Connection id {conn_id!r} has a slash, which a callback URL cannot "
                "contain. Rename the connection."
            )
        if self.settings.redis is None:
            found.append(self._redis_error)
        return " ".join(found) or None

    @property
    def is_configured(self) -> bool:
        """Whether webhooks can work with this connection."""
        return self.config_error is None

    @property
    def redis(self) -> RedisConnection:
        """The Redis of the inbox.

        Raises:
            Misconfigured: Its connection does not exist.
        """
        if self.settings.redis is None:
            raise Misconfigured(self._redis_error)
        return self.settings.redis

    @property
    def _redis_error(self) -> str:
        connection = self.settings.connection
        return (
            f"Redis connection {connection.redis_conn_id!r}, named by connection "
            f"{connection.conn_id!r}, does not exist. Deliveries are kept there: "
            "create it under Admin, Connections, or name another one (redis_conn_id)."
        )

    def check(self) -> None:
        """Check that deliveries can be written and read; see ``write_and_read``.

        Raises:
            Misconfigured: The connection does not exist, or names a replica.
            SinkError: Redis is unavailable, or refuses something.
        """
        write_and_read(self.redis, self.settings.connection.conn_id)

    def webhook_url(self, delivery_id: str, expires: float) -> str:
        """Return the callback URL of one delivery.

        Raises:
            Misconfigured: Webhooks cannot work with this connection.
        """
        if self.config_error is not None:
            raise Misconfigured(self.config_error)
        connection = self.settings.connection
        return callback_url.url(
            self.settings.callback_url or "",
            connection.callback_secrets[0],
            connection.conn_id,
            delivery_id,
            int(expires),
        )

    def uri(self, delivery_id: str) -> str:
        """Return the URI of a delivery in the inbox."""
        return keys.delivery_uri(self.namespace, delivery_id)

    def target(
        self, delivery_id: str, *, is_required: bool = True, takes_results: bool = True
    ) -> WaitTarget:
        """Return the source at which a delivery to the inbox arrives.

        Args:
            delivery_id: Id of the delivery.
            is_required: See ``WaitTarget``.
            takes_results: False for progress and failures only.
        """
        interval = self.settings.config.inbox_sweep_seconds
        factory = _WaiterFactory(self.redis, self.namespace, takes_results, interval)
        return WaitTarget(factory, delivery_id, is_required)

    def open(self, uri: str, open_url: UrlOpener) -> StoredResult:
        """Open a delivery in the inbox.

        Args:
            uri: ``inbox://conn_id/delivery_id``, or, for a message of a queue,
                ``inbox://amqp/amqp_conn_id/queue/delivery_id``.
            open_url: Opens the result if the delivery only names its URL.

        Raises:
            Misconfigured: It was delivered through another runqy connection.
            TooLarge: It is larger than ``context.max_read_bytes``.
        """
        namespace, delivery_id = _parts(uri)
        conn_id = self.settings.connection.conn_id
        if namespace != conn_id and not keys.is_queue_namespace(namespace):
            raise Misconfigured(
                f"{uri} was delivered through connection {namespace!r}; it cannot be "
                f"read through {conn_id!r}."
            )
        if delivery_id.endswith(MANIFEST_FRAGMENT):
            batch_id = delivery_id.removesuffix(MANIFEST_FRAGMENT)
            manifest = self._manifest(namespace, batch_id)
            return StoredResult(
                uri,
                0.0,
                content_type=MANIFEST_TYPE,
                size=manifest.size(),
                opener=manifest.stream,
            )
        with InboxReader(self.redis, namespace) as reader:
            stored = reader.read(delivery_id, self.settings.max_read_bytes)
        return _fetched(stored, uri, open_url)

    def open_all(
        self, delivery_ids: Sequence[str], small: int, open_url: UrlOpener
    ) -> Iterator[StoredResult | Exception]:
        """Open many deliveries; see ``BoundSink.open_all``."""
        most = small + DELIVERY_FIELDS_BYTES
        if self.settings.max_read_bytes is not None:
            most = min(most, self.settings.max_read_bytes)
        with InboxReader(self.redis, self.namespace) as reader:
            found = reader.read_small(delivery_ids, most)
        for delivery_id, stored in zip(delivery_ids, found, strict=True):
            if isinstance(stored, WireBadDelivery):
                yield stored
                continue
            uri = self.uri(delivery_id)
            try:
                yield (
                    self.open(uri, open_url)
                    if stored is None
                    else _fetched(stored, uri, open_url)
                )
            except (RunqyError, WireBadDelivery) as error:
                yield error

    def write_manifest(self, batch_id: str, lines: BinaryIO) -> str:
        """Store the manifest of a batch, and return its URI."""
        manifest = self._manifest(self.namespace, batch_id)
        manifest.write(lines, self.settings.config.unread_ttl_seconds)
        return f"{self.uri(batch_id)}{MANIFEST_FRAGMENT}"

    def _manifest(self, namespace: str, batch_id: str) -> InboxManifest:
        from runqy_provider.inbox.manifest import (  # noqa: PLC0415 - for batches only
            InboxManifest,
        )

        return InboxManifest(self.redis, namespace, batch_id)

    def forget(self, *uris: str) -> None:
        """Let deliveries whose values were read expire soon; ignore other URIs."""
        by_namespace: dict[str, list[str]] = {}
        for namespace, delivery_id in map(_parts, filter(is_in_inbox, uris)):
            by_namespace.setdefault(namespace, []).append(delivery_id)
        for namespace, delivery_ids in by_namespace.items():
            with InboxReader(self.redis, namespace) as reader:
                reader.forget(*delivery_ids)

    def describe(self, delivery_id: str) -> str:
        """Say where a webhook was looked for, and what to check."""
        conn_id, redis = self.settings.connection.conn_id, self.redis
        key = keys.delivery(redis.in_keys(conn_id), delivery_id)
        url = f"{self.settings.callback_url}/{conn_id}/v1/deliveries/{delivery_id}"
        return (
            f"No webhook was received at {url}: the inbox (Redis at "
            f"{redis.address}, key {key}) is "
            "empty. Check that workers reach that address, and the log of the task code"
        )

    def warn_of_loopback(self) -> None:
        """Log a warning if workers on another machine would call themselves."""
        connection, url = self.settings.connection, self.settings.callback_url
        if url and _is_loopback(url) and not _is_loopback(connection.server_url):
            log.warning(
                "Deliveries go to %s, which only this machine can reach, while runqy "
                "is at %s. Set callback_url of connection %r.",
                url,
                connection.server_url,
                connection.conn_id,
            )


def _fetched(stored: StoredDelivery, uri: str, open_url: UrlOpener) -> StoredResult:
    delivery = stored.delivery
    if delivery.status != FAILED and delivery.result_url is not None:
        return open_url(delivery, delivery.result_url)
    return StoredResult.from_delivery(delivery, uri, stored.delivered_at)


def _parts(uri: str) -> tuple[str, str]:
    """Return the namespace and the delivery id of a URI."""
    namespace, _, delivery_id = uri.removeprefix(keys.SCHEME).rpartition("/")
    return namespace, delivery_id


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
