# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The interface of an object store, as sinks and sources use it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, TypeVar, cast

from runqy_provider.caching import TtlCache

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


T = TypeVar("T")

#: Seconds after which a client is created again, so that a change of its connection is
#: noticed.
CLIENT_TTL = 900.0

#: Seconds after which a failed creation is retried.
RETRY_AFTER = 60.0

#: The clients of this process.
CLIENTS: TtlCache[Any] = TtlCache(CLIENT_TTL, RETRY_AFTER)


@dataclass(frozen=True)
class Listing:
    """The objects that were found.

    Attributes:
        keys: The keys of the objects, each with the time of its last change in seconds
            since 1970.
        pages: How many requests the listing took.
    """

    keys: dict[str, float]
    pages: int = 1


@dataclass(frozen=True)
class Head:
    """The metadata that a store keeps of an object.

    Attributes:
        size: In bytes.
        modified: Time of the last change, in seconds since 1970.
        content_type: Media type; None if the store keeps none.
        is_compressed: Whether the object is stored compressed. Then ``size`` counts the
            compressed bytes, and ``stream`` returns more.
    """

    size: int
    modified: float
    content_type: str | None
    is_compressed: bool = False


@dataclass(frozen=True)
class SignedPut:
    """A URL by which anyone who has it can PUT one object.

    Attributes:
        url: The URL; a secret.
        headers: Headers that the PUT must have.
        ends_at: When the credentials that signed the URL expire, and the URL with them,
            in seconds since 1970; None if they do not expire.
    """

    url: str = field(repr=False)
    headers: Mapping[str, str] | None = None
    ends_at: float | None = None


class ObjectStore(Protocol):
    """One bucket of one store. All methods block."""

    @property
    def url(self) -> str:
        """URI of the bucket, without a slash at the end: ``s3://bucket``."""

    @property
    def access_hint(self) -> str:
        """What grants access, for messages: ``AWS connection 'aws_default'``."""

    def check(self, folder: str) -> None:
        """Check that the bucket exists and can be listed.

        Args:
            folder: Where results go, with a slash at the end, or empty. Only this
                folder may be listed: permissions may be limited to it.

        Raises:
            SinkError: The bucket is unavailable, does not exist, or refuses access.
        """

    def list_folder(self, folder: str) -> Listing:
        """List the objects in a folder, without those in its subfolders.

        Args:
            folder: The folder, with a slash at the end; empty for the top of the
                bucket.

        Raises:
            SinkError: The folder cannot be listed.
        """

    def list_below(self, folder: str, most_pages: int) -> Listing | None:
        """List the objects in a folder and in all folders below it.

        Args:
            folder: As in ``list_folder``.
            most_pages: How many requests it may take.

        Returns:
            None if it would take more, or if looking for each object costs almost
            nothing.

        Raises:
            SinkError: The folder cannot be listed.
        """

    def find(self, key: str, suffix: str) -> Listing:
        """Look for two objects: at a key, and at that key with a suffix.

        Raises:
            SinkError: The store cannot be asked.
        """

    def head(self, key: str) -> Head:
        """Return the metadata of an object.

        Raises:
            NotThere: The object does not exist.
            SinkError: It cannot be read.
        """

    def stream(self, key: str) -> BinaryIO:
        """Open an object for reading.

        Raises:
            NotThere: The object does not exist.
            SinkError: It cannot be read.
        """

    def write(self, key: str, content: BinaryIO, content_type: str) -> None:
        """Store an object, in place of the one before.

        Args:
            key: The key of the object.
            content: A file at its beginning.
            content_type: Its media type.

        Raises:
            SinkError: It cannot be written.
        """

    def sign_put(self, key: str, seconds: int) -> SignedPut | None:
        """Return a URL to PUT an object to; None if the store cannot sign URLs.

        Args:
            key: The key of the object.
            seconds: How long the URL is to work.

        Raises:
            SinkError: The URL cannot be signed.
        """

    def sign_get(self, key: str, seconds: int) -> str | None:
        """Return a URL to GET an object from; None if the store cannot sign URLs.

        Args:
            key: The key of the object.
            seconds: How long the URL is to work.

        Raises:
            SinkError: The URL cannot be signed.
        """

    def key_of(self, url: str) -> str | None:
        """Return the key of the object that a URL names; None if not in this bucket.

        Raises:
            BadDelivery: The URL cannot be parsed.
        """


def shared_client(name: str, make: Callable[[T | None], T]) -> T:
    """Return the process's client for a store.

    Blocks while the connection is fetched from Airflow: from async code, call it in a
    thread. Several threads may use a client at once.

    Args:
        name: Identifies the client, in plain text for warnings: the connection, and the
            bucket if a client serves only one bucket.
        make: Creates the client; its argument is the previous client, None at first.

    Raises:
        Exception: What ``make`` raises, if there is no previous client to use.
    """
    return cast("T", CLIENTS.get(f"The client for {name}", make))


@dataclass(frozen=True)
class S3Put:
    """Options of a PUT besides its bucket and key.

    Attributes:
        once: Refuse the PUT if an object exists already.
        sse: Server-side encryption.
        kms_key_id: The KMS key.
        acl: A canned ACL.
    """

    once: bool = True
    sse: str | None = None
    kms_key_id: str | None = None
    acl: str | None = None

    def _rows(self) -> list[tuple[str, str, str | None]]:
        """Return the options: boto3's name, name of the header, value."""
        return [
            ("IfNoneMatch", "If-None-Match", "*" if self.once else None),
            ("ServerSideEncryption", "x-amz-server-side-encryption", self.sse),
            (
                "SSEKMSKeyId",
                "x-amz-server-side-encryption-aws-kms-key-id",
                self.kms_key_id,
            ),
            ("ACL", "x-amz-acl", self.acl),
        ]

    @property
    def parameters(self) -> dict[str, str]:
        """The options as boto3 takes them; it signs them."""
        return {name: value for name, _, value in self._rows() if value is not None}

    @property
    def headers(self) -> dict[str, str] | None:
        """Headers that the PUT must have, as they are signed; None: no headers."""
        given = {name: value for _, name, value in self._rows() if value is not None}
        return given or None
