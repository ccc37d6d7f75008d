# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""What all sinks in object stores share: an object, and a webhook that tells of it."""

from __future__ import annotations

import abc
import contextlib
import functools
import json
import logging
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlencode

from runqy_delivery import Delivery, DeliveryRequest
from runqy_provider.errors import Misconfigured, NoAccess, NotThere, TooLarge
from runqy_provider.sinks import inbox as inbox_parcels
from runqy_provider.sinks.base import Sink
from runqy_provider.sinks.object_store.source import FAILED_SUFFIX, ObjectArrivals
from runqy_provider.sinks.object_store.uri import address_of, check_name, key_at, quoted
from runqy_provider.sinks.result import BYTES_TYPE, JSON_TYPE, Parcel
from runqy_provider.waiters.source import Place
from runqy_provider.waiters.waiter import Waiter

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from runqy_provider.context import Access
    from runqy_provider.models import Ticket
    from runqy_provider.sinks.base import Follow
    from runqy_provider.sinks.object_store.base import Head, ObjectStore, SignedPut

log = logging.getLogger(__name__)

#: The longest that stores let a signed URL live, in seconds.
LONGEST_SIGNED = 7 * 24 * 3600

#: With a webhook as the bell, listing is only the safety net: this many times rarer.
WITH_BELL = 6

#: Where a store keeps no media types, objects up to this many bytes are read to see
#: whether they are JSON.
LARGEST_SNIFFED = 1024 * 1024


@dataclass(frozen=True)
class ObjectSink(Sink):
    """Results in an object store.

    Args:
        bucket: Name of the bucket.
        prefix: What keys begin with; a job's key is ``prefix/delivery_id``.
        presign: Give workers a signed PUT URL, so that they need no credentials.
    """

    #: The scheme of its URIs, and its name in the wire format.
    scheme: ClassVar[str]

    #: The argument that names the Airflow connection; None where there is none.
    conn_option: ClassVar[str | None] = None

    #: Further options of its URIs.
    more_options: ClassVar[tuple[str, ...]] = ()

    bucket: str
    prefix: str = ""
    presign: bool = True

    def __post_init__(self) -> None:
        self._check_bucket()
        if self.prefix != self.prefix.strip("/") or "//" in self.prefix:
            raise Misconfigured(
                f"The prefix {self.prefix!r} of a sink in an object store must not "
                "begin or end with a slash, nor have two in a row."
            )
        check_name(self.prefix)

    @abc.abstractmethod
    def _check_bucket(self) -> None:
        """Raise Misconfigured where the bucket's name makes no sense."""

    @abc.abstractmethod
    def store(self, access: Access) -> ObjectStore:
        """Return the bucket. Cheap: nothing is asked before it is used."""

    @classmethod
    def from_parts(
        cls, bucket: str, prefix: str, options: Mapping[str, str]
    ) -> ObjectSink:
        """Return the sink that the parts of a URI mean, no longer quoted.

        Raises:
            Misconfigured: An option is unknown, or the names make no sense.
        """
        named = [] if cls.conn_option is None else [cls.conn_option]
        known = ["presign", *named, *cls.more_options]
        unknown = sorted(set(options) - set(known))
        if unknown:
            raise Misconfigured(
                f"A sink {cls.scheme}:// knows the options {' and '.join(known)}, not "
                f"{', '.join(unknown)}. A '?' that belongs to a name is written %3F."
            )
        presign = options.get("presign", str(cls.presign).lower())
        if presign not in ("true", "false"):
            raise Misconfigured(f"presign of a sink is true or false, not {presign!r}.")
        more = cls.more_from(options)
        sink = cls(bucket, prefix.strip("/"), presign == "true", **more)
        conn_id = options.get(cls.conn_option or "")
        return sink if conn_id is None else sink.through(conn_id)

    @classmethod
    def more_from(cls, options: Mapping[str, str]) -> dict[str, Any]:
        """Return the arguments that the options of this kind of store mean.

        Raises:
            Misconfigured: One of them makes no sense.
        """
        return {name: options[name] for name in cls.more_options if name in options}

    @property
    def more_in_uri(self) -> Mapping[str, str]:
        """The options of this kind of store that differ from its defaults."""
        return {}

    def through(self, conn_id: str) -> ObjectSink:
        """Return the same sink with another Airflow connection.

        Raises:
            Misconfigured: It goes without connections.
        """
        if self.conn_option is None:
            raise Misconfigured(f"A sink {self.scheme}:// uses no connection.")
        named: dict[str, Any] = {self.conn_option: conn_id}
        return replace(self, **named)

    @property
    def uri(self) -> str:
        """The sink as a text."""
        options = {}
        if self.presign != type(self).presign:
            options["presign"] = str(self.presign).lower()
        conn_id = getattr(self, self.conn_option) if self.conn_option else None
        if self.conn_option is not None and conn_id is not None:
            options[self.conn_option] = conn_id
        options.update(self.more_in_uri)
        query = f"?{urlencode(options)}" if options else ""
        return f"{self.scheme}://{quoted(self._path)}{query}"

    @property
    def _path(self) -> str:
        return f"{self.bucket}/{self.prefix}" if self.prefix else self.bucket

    @property
    def takes_progress(self) -> bool:
        """True: a webhook, if one is set up, is told."""
        return True

    def check(self, access: Access) -> None:
        """Ask whether the bucket is there and ours, and the bell's inbox, if any."""
        self.store(access).check(self._folder)
        if self._has_bell(access):
            inbox_parcels.check(access)

    def request(
        self, access: Access, delivery_id: str, expires: float
    ) -> DeliveryRequest:
        """Ask for an object under our key, and for a webhook where one can come."""
        store, key = self.store(access), self.key(delivery_id)
        bell = self._has_bell(access)
        failed_key = None if bell else key + FAILED_SUFFIX
        put = self._signed(store, key, expires)
        failed_put = self._signed(store, failed_key, expires)
        return DeliveryRequest(
            delivery_id,
            sink=self.scheme,
            url=address_of(store.url, key),
            bucket=self.bucket,
            key=key,
            put_url=put.url if put else None,
            put_headers=put.headers if put else None,
            failed_key=failed_key,
            failed_put_url=failed_put.url if failed_put else None,
            webhook_url=inbox_parcels.webhook_url(access, delivery_id, expires)
            if bell
            else None,
            max_bytes=access.max_body if bell else None,
        )

    def where(self, access: Access, delivery_id: str) -> str:
        """Return where the object will be."""
        return address_of(self.store(access).url, self.key(delivery_id))

    def owns(self, where: str) -> bool:
        """True for what is in the bucket, or in the inbox of the bell."""
        at = f"{self.scheme}://{quoted(self.bucket).rstrip('/')}/"
        return where.startswith((inbox_parcels.SCHEME, at))

    def places(self, access: Access, ticket: Ticket) -> Sequence[Place]:
        """Return the bucket, and the inbox where the webhook may come to."""
        bell = self._has_bell(access)
        sweep = access.object_sweep * (WITH_BELL if bell else 1)
        store = self.store(access)
        bucket = Place(
            ("objects", store, sweep),
            lambda: Waiter(ObjectArrivals(lambda: store), sweep),
            self.key(ticket.delivery_id),
        )
        if not bell:
            return [bucket]
        inbox = inbox_parcels.place(access, ticket.delivery_id, is_essential=False)
        return [inbox, bucket]

    def open(self, access: Access, where: str, follow: Follow | None = None) -> Parcel:
        """Open the object, by way of the inbox if the webhook came first."""
        if where.startswith(inbox_parcels.SCHEME):
            if follow is None:
                follow = functools.partial(self.follow, access)
            return inbox_parcels.open_letter(access, where, follow)
        store = self.store(access)
        key = key_at(store.url, where)
        if key is None:
            raise NoAccess(f"{where} is not in the bucket {store.url} of the sink.")
        if not key.endswith(FAILED_SUFFIX):
            return _open_object(access, store, key)
        with store.stream(key) as stream:
            delivery = Delivery.from_json(stream.read())
        return Parcel.of_failure(delivery, where, store.head(key).modified)

    def link(self, access: Access, where: str, seconds: float) -> str | None:
        """Return a signed GET URL of an object in our bucket."""
        store = self.store(access)
        key = key_at(store.url, where)
        return None if key is None else store.sign_get(key, lifetime(seconds))

    def nothing_arrived(self, access: Access, ticket: Ticket) -> str:
        """Say which key nobody wrote to."""
        words = (
            f"No object came to {self.where(access, ticket.delivery_id)} (looked for "
            f"with {self.store(access).access_hint}). Check the log of the task code"
        )
        if self._has_bell(access):
            words = f"{inbox_parcels.looked_in(access, ticket.delivery_id)}. {words}"
        return words + "."

    def follow(self, access: Access, delivery: Delivery, url: str) -> Parcel:
        """Open the object that a URL means, if it is in our bucket."""
        store = self.store(access)
        keys = self._keys_of(store, url)
        if not keys:
            raise NoAccess(
                f"Delivery {delivery.delivery_id} says that its result lies outside "
                f"the bucket {store.url} of the sink ({url.partition('?')[0]}). It "
                "was not fetched: name the bucket that the task code uses as the sink."
            )
        for key in keys[:-1]:
            with contextlib.suppress(NotThere):
                return self._opened(access, store, key, delivery)
        return self._opened(access, store, keys[-1], delivery)

    def _opened(
        self, access: Access, store: ObjectStore, key: str, delivery: Delivery
    ) -> Parcel:
        parcel = _open_object(access, store, key, delivery.content_type)
        if delivery.metadata is None:
            return parcel
        return replace(parcel, metadata=delivery.metadata)

    def _keys_of(self, store: ObjectStore, url: str) -> list[str]:
        """Return the keys that a URL may mean in our bucket, the likeliest first.

        People write an object's address as they see its name, with characters that
        mean something else in a URL; so what stands there literally goes first.
        """
        at = f"{store.url}/"
        literal = url[len(at) :] if url.startswith(at) else ""
        return list(dict.fromkeys(filter(None, (literal, store.key_of(url)))))

    def key(self, delivery_id: str) -> str:
        """Return the key of a delivery's object."""
        return f"{self.prefix}/{delivery_id}" if self.prefix else delivery_id

    @property
    def _folder(self) -> str:
        return f"{self.prefix}/" if self.prefix else ""

    def _has_bell(self, access: Access) -> bool:
        return inbox_parcels.missing(access) is None

    def _signed(
        self, store: ObjectStore, key: str | None, expires: float
    ) -> SignedPut | None:
        if key is None or not self.presign:
            return None
        seconds = expires - time.time()
        if seconds > LONGEST_SIGNED:
            log.warning(
                "The signed URL for %s/%s works for 7 days only, which is as long as "
                "stores allow; the job may take %.1f. Should it take longer, the "
                "worker needs rights of its own.",
                store.url,
                key,
                seconds / 86400,
            )
        put = store.sign_put(key, lifetime(seconds))
        if put is not None and put.ends_at is not None and put.ends_at < expires:
            log.warning(
                "The signed URL for %s/%s works until %s only, when the credentials "
                "that signed it end; the result is waited for until %s. Should the job "
                "take longer, the worker needs rights of its own.",
                store.url,
                key,
                _moment(put.ends_at),
                _moment(expires),
            )
        return put


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))


def lifetime(seconds: float) -> int:
    """Return how long a signed URL is to live, within what stores allow."""
    return int(min(max(seconds, 60), LONGEST_SIGNED))


def _open_object(
    access: Access, store: ObjectStore, key: str, content_type: str | None = None
) -> Parcel:
    head = store.head(key)
    content_type = head.content_type or content_type
    return Parcel(
        where=address_of(store.url, key),
        delivered_at=head.modified,
        content_type=content_type or _sniffed(access, store, key, head),
        size=None if head.is_compressed else head.size,
        stream=functools.partial(store.stream, key),
    )


def _sniffed(access: Access, store: ObjectStore, key: str, head: Head) -> str:
    """Return what an object seems to be, where its store keeps no media types."""
    if head.size > LARGEST_SNIFFED:
        return BYTES_TYPE
    if access.largest_read is not None and head.size > access.largest_read:
        raise TooLarge(f"{key} has {head.size} bytes, which are not read here.")
    with store.stream(key) as stream:
        try:
            json.loads(stream.read())
        except (ValueError, RecursionError):
            return BYTES_TYPE
    return JSON_TYPE
