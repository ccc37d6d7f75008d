# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Base class of the sinks in object stores: an object, and a webhook for it."""

from __future__ import annotations

import abc
import contextlib
import functools
import json
import logging
import re
import time
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit

from runqy_delivery import Delivery, DeliveryRequest
from runqy_provider.errors import (
    Misconfigured,
    NoAccess,
    NotInSink,
    NotThere,
    TooLarge,
)
from runqy_provider.sinks.base import BoundSink, Sink
from runqy_provider.sinks.inbox import is_in_inbox
from runqy_provider.sinks.object_store.listing import FAILED_SUFFIX, ObjectSource
from runqy_provider.sinks.object_store.uri import (
    check_name,
    key_at,
    object_uri,
    quoted,
    unquoted,
)
from runqy_provider.sinks.options import options_of, query_of
from runqy_provider.sinks.result import (
    BYTES_TYPE,
    JSON_TYPE,
    MANIFEST_TYPE,
    StoredResult,
)
from runqy_provider.waiters.waiter import Waiter, WaitTarget

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import BinaryIO

    from typing_extensions import Self

    from runqy_provider.models import JobRef
    from runqy_provider.settings import Settings
    from runqy_provider.sinks.object_store.base import Head, ObjectStore, SignedPut
    from runqy_provider.sinks.result import UrlOpener

log = logging.getLogger(__name__)

#: The longest lifetime of a signed URL that stores allow, in seconds.
MAX_LIFETIME = 7 * 24 * 3600

#: If a webhook announces objects, listings only find those without one: their interval
#: is longer by this factor.
WEBHOOK_INTERVAL_FACTOR = 6

#: If a store keeps no media types, objects up to this many bytes are read to see
#: whether they are JSON.
MAX_GUESSED_BYTES = 1024 * 1024


def lifetime(seconds: float) -> int:
    """Return how many seconds a signed URL must work, within what stores allow."""
    return int(min(max(seconds, 60), MAX_LIFETIME))


def sign_put(store: ObjectStore, key: str, expires: float) -> SignedPut | None:
    """Return a URL to PUT an object to; None if the store cannot sign URLs.

    Args:
        store: The bucket.
        key: The key of the object.
        expires: Until when the URL should work, in seconds since 1970. A warning is
            logged if it expires earlier.

    Raises:
        SinkError: The URL cannot be signed.
    """
    seconds = expires - time.time()
    if seconds > MAX_LIFETIME:
        log.warning(
            "The signed URL for %s/%s works for only 7 days, the longest that stores "
            "allow, and the job may take %.1f. If it takes longer, the worker needs "
            "credentials of its own.",
            store.url,
            key,
            seconds / 86400,
        )
    put = store.sign_put(key, lifetime(seconds))
    if put is not None and put.ends_at is not None and put.ends_at < expires:
        log.warning(
            "The signed URL for %s/%s works only until %s, when the credentials that "
            "signed it expire; the task waits for the result until %s. If the job "
            "takes longer, the worker needs credentials of its own.",
            store.url,
            key,
            _utc(put.ends_at),
            _utc(expires),
        )
    return put


def _utc(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))


@dataclass(frozen=True, slots=True)
class _WaiterFactory:
    store: ObjectStore
    interval: float

    def __call__(self) -> Waiter:
        return Waiter(ObjectSource(lambda: self.store), self.interval)


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

    #: What its buckets are, and the pattern of their names.
    bucket_kind: ClassVar[str]
    bucket_names: ClassVar[str]

    #: The argument that names the Airflow connection; None if there is none.
    conn_option: ClassVar[str | None] = None

    bucket: str
    prefix: str = ""
    presign: bool = True

    def __post_init__(self) -> None:
        self._check_bucket()
        if self.prefix != self.prefix.strip("/") or "//" in self.prefix:
            raise Misconfigured(
                f"The prefix {self.prefix!r} of a sink in an object store must not "
                "begin or end with a slash, or have two in a row."
            )
        check_name(self.prefix)

    def _check_bucket(self) -> None:
        """Raise Misconfigured if the name of the bucket is not valid."""
        if not re.fullmatch(self.bucket_names, self.bucket):
            raise Misconfigured(
                f"{self.bucket!r} is not a valid name of {self.bucket_kind}. Write the "
                f"sink as {self.scheme}://bucket/prefix."
            )

    @abc.abstractmethod
    def store(self, settings: Settings) -> ObjectStore:
        """Return the bucket as a store; it connects when it is first used."""

    @classmethod
    def from_uri(cls, uri: str) -> Self:
        """Return the sink that ``scheme://bucket/prefix?option=value`` describes.

        Raises:
            Misconfigured: An option is unknown, or a name is not valid.
        """
        parts = urlsplit(uri)
        prefix = unquoted(parts.path).strip("/")
        return cls(parts.netloc, prefix, **options_of(uri, cls.defaults()))

    @classmethod
    def for_result(cls, uri: str) -> Self:
        """Return the whole bucket of an object."""
        return cls(urlsplit(uri).netloc)

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """Return the options of its URIs, and their defaults."""
        _bucket, _prefix, *options = fields(cls)
        return {option.name: option.default for option in options}

    def with_connection(self, conn_id: str) -> Self:
        """Return a copy of the sink that uses another Airflow connection.

        Raises:
            Misconfigured: This kind of store has no connection.
        """
        if self.conn_option is None:
            raise Misconfigured(f"A sink {self.scheme}:// uses no connection.")
        named: dict[str, Any] = {self.conn_option: conn_id}
        return replace(self, **named)

    @property
    def uri(self) -> str:
        defaults = self.defaults()
        query = query_of({name: getattr(self, name) for name in defaults}, defaults)
        return f"{self.scheme}://{quoted(self._path)}{query}"

    @property
    def _path(self) -> str:
        return f"{self.bucket}/{self.prefix}" if self.prefix else self.bucket

    @property
    def takes_progress(self) -> bool:
        """Whether progress can be reported: by webhook, if one is set up."""
        return True

    def bind(self, settings: Settings) -> BoundObjectSink:
        return BoundObjectSink(self, settings)

    def key(self, delivery_id: str) -> str:
        return f"{self.prefix}/{delivery_id}" if self.prefix else delivery_id

    @property
    def folder(self) -> str:
        """What the keys begin with: the prefix and a slash, or empty."""
        return f"{self.prefix}/" if self.prefix else ""


class BoundObjectSink(BoundSink):
    """One bucket, and the inbox of the webhooks that announce objects."""

    sink: ObjectSink

    def __init__(self, sink: ObjectSink, settings: Settings) -> None:
        super().__init__(sink, settings)
        self.store = sink.store(settings)

    def check(self) -> None:
        """Check that the bucket exists and can be listed; and the inbox, if any."""
        self.store.check(self.sink.folder)
        if self.inbox.is_configured:
            self.inbox.check()

    def request(self, delivery_id: str, expires: float) -> DeliveryRequest:
        """Request an object under our key, and a webhook if one is set up."""
        key, config = self.sink.key(delivery_id), self.settings.config
        has_webhook = self.inbox.is_configured
        failed_key = None if has_webhook else key + FAILED_SUFFIX
        put = self._sign(key, expires)
        failed_put = None if failed_key is None else self._sign(failed_key, expires)
        return DeliveryRequest(
            delivery_id,
            sink=self.sink.scheme,
            url=object_uri(self.store.url, key),
            bucket=self.sink.bucket,
            key=key,
            put_url=put.url if put else None,
            put_headers=put.headers if put else None,
            failed_key=failed_key,
            failed_put_url=failed_put.url if failed_put else None,
            webhook_url=self.inbox.webhook_url(delivery_id, expires)
            if has_webhook
            else None,
            max_bytes=config.max_body_bytes if has_webhook else None,
        )

    def result_uri(self, delivery_id: str) -> str:
        """Return the URI of the object."""
        return object_uri(self.store.url, self.sink.key(delivery_id))

    def owns(self, uri: str) -> bool:
        """Return whether a delivery is in the bucket, or in the inbox."""
        bucket = f"{self.sink.scheme}://{quoted(self.sink.bucket).rstrip('/')}/"
        return is_in_inbox(uri) or uri.startswith(bucket)

    def targets(self, job: JobRef) -> Sequence[WaitTarget]:
        """Return the bucket, and the inbox if webhooks are set up."""
        has_webhook = self.inbox.is_configured
        factor = WEBHOOK_INTERVAL_FACTOR if has_webhook else 1
        interval = self.settings.config.object_sweep_seconds * factor
        bucket = WaitTarget(
            _WaiterFactory(self.store, interval), self.sink.key(job.delivery_id)
        )
        if not has_webhook:
            return [bucket]
        return [self.inbox.target(job.delivery_id, is_required=False), bucket]

    def open(self, uri: str, open_url: UrlOpener | None = None) -> StoredResult:
        """Open the object at a URI, or the one that a webhook at a URI announced."""
        if is_in_inbox(uri):
            return self.inbox.open(uri, open_url or self.open_url)
        key = key_at(self.store.url, uri)
        if key is None:
            raise NoAccess(f"{uri} is not in the bucket {self.store.url} of the sink.")
        if not key.endswith(FAILED_SUFFIX):
            return self._open_object(key)
        with self.store.stream(key) as stream:
            delivery = Delivery.from_json(stream.read())
        modified = self.store.head(key).modified
        return StoredResult.from_failure(delivery, uri, modified)

    def open_url(self, delivery: Delivery, url: str) -> StoredResult:
        """Open the object that a URL names, if it is in this bucket."""
        keys = self._keys_of(url)
        if not keys:
            raise NotInSink(
                f"Delivery {delivery.delivery_id} says that its result is outside the "
                f"bucket {self.store.url} of the sink ({url.partition('?')[0]}). It "
                "was not fetched: name the bucket that the task code uses as the sink."
            )
        for key in keys[:-1]:
            with contextlib.suppress(NotThere):
                return self._open_announced(key, delivery)
        return self._open_announced(keys[-1], delivery)

    def write_manifest(self, batch_id: str, lines: BinaryIO) -> str:
        """Store the manifest of a batch as an object."""
        key = self.sink.key(f"{batch_id}.jsonl")
        self.store.write(key, lines, MANIFEST_TYPE)
        return object_uri(self.store.url, key)

    def link(self, uri: str, seconds: float) -> str | None:
        """Return a signed GET URL of an object in this bucket."""
        key = key_at(self.store.url, uri)
        return None if key is None else self.store.sign_get(key, lifetime(seconds))

    def describe_timeout(self, job: JobRef) -> str:
        """Say which object was not found."""
        message = (
            f"No object was found at {self.result_uri(job.delivery_id)} (polled with "
            f"{self.store.access_hint}). Check the log of the task code"
        )
        if self.inbox.is_configured:
            message = f"{self.inbox.describe(job.delivery_id)}. {message}"
        return message + "."

    def _sign(self, key: str, expires: float) -> SignedPut | None:
        return sign_put(self.store, key, expires) if self.sink.presign else None

    def _open_announced(self, key: str, delivery: Delivery) -> StoredResult:
        opened = self._open_object(key, delivery.content_type)
        if delivery.metadata is None:
            return opened
        return replace(opened, metadata=delivery.metadata)

    def _keys_of(self, url: str) -> list[str]:
        """Return the keys that a URL may mean in this bucket, the most likely first.

        Task code often writes a name unquoted, with characters that have a meaning in
        a URL; so the literal text comes first.
        """
        start = f"{self.store.url}/"
        literal = url[len(start) :] if url.startswith(start) else ""
        return list(dict.fromkeys(filter(None, (literal, self.store.key_of(url)))))

    def _open_object(self, key: str, content_type: str | None = None) -> StoredResult:
        head = self.store.head(key)
        known = head.content_type or content_type
        return StoredResult(
            object_uri(self.store.url, key),
            head.modified,
            content_type=known or self._guess_content_type(key, head),
            size=None if head.is_compressed else head.size,
            opener=functools.partial(self.store.stream, key),
        )

    def _guess_content_type(self, key: str, head: Head) -> str:
        """Guess the type of an object from its content: the store keeps no types."""
        if head.size > MAX_GUESSED_BYTES:
            return BYTES_TYPE
        limit = self.settings.max_read_bytes
        if limit is not None and head.size > limit:
            raise TooLarge(
                f"{self.store.url}/{key} has {head.size} bytes; at most {limit} are "
                "read here."
            )
        with self.store.stream(key) as stream:
            try:
                json.loads(stream.read())
            except (ValueError, RecursionError):
                return BYTES_TYPE
        return JSON_TYPE
