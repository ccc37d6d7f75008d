# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The interface of an object store, as sinks and sources use it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping


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
        ...

    @property
    def access_hint(self) -> str:
        """What grants access, for messages: ``AWS connection 'aws_default'``."""
        ...

    def check(self, folder: str) -> None:
        """Check that the bucket exists and can be listed.

        Args:
            folder: Where results go, with a slash at the end, or empty. Only this
                folder may be listed: permissions may be limited to it.

        Raises:
            SinkError: The bucket is unavailable, does not exist, or refuses access.
        """
        ...

    def list_folder(self, folder: str) -> Listing:
        """List the objects in a folder, without those in its subfolders.

        Args:
            folder: The folder, with a slash at the end; empty for the top of the
                bucket.

        Raises:
            SinkError: The folder cannot be listed.
        """
        ...

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
        ...

    def find(self, key: str, suffix: str) -> Listing:
        """Look for two objects: at a key, and at that key with a suffix.

        Raises:
            SinkError: The store cannot be asked.
        """
        ...

    def head(self, key: str) -> Head:
        """Return the metadata of an object.

        Raises:
            NotThere: The object does not exist.
            SinkError: It cannot be read.
        """
        ...

    def stream(self, key: str) -> BinaryIO:
        """Open an object for reading.

        Raises:
            NotThere: The object does not exist.
            SinkError: It cannot be read.
        """
        ...

    def write(self, key: str, content: BinaryIO, content_type: str) -> None:
        """Store an object, in place of the one before.

        Args:
            key: The key of the object.
            content: A file at its beginning.
            content_type: Its media type.

        Raises:
            SinkError: It cannot be written.
        """
        ...

    def sign_put(self, key: str, seconds: int) -> SignedPut | None:
        """Return a URL to PUT an object to; None if the store cannot sign URLs.

        Args:
            key: The key of the object.
            seconds: How long the URL is to work.

        Raises:
            SinkError: The URL cannot be signed.
        """
        ...

    def sign_get(self, key: str, seconds: int) -> str | None:
        """Return a URL to GET an object from; None if the store cannot sign URLs.

        Args:
            key: The key of the object.
            seconds: How long the URL is to work.

        Raises:
            SinkError: The URL cannot be signed.
        """
        ...

    def key_of(self, url: str) -> str | None:
        """Return the key of the object that a URL names; None if not in this bucket.

        Raises:
            BadDelivery: The URL cannot be parsed.
        """
        ...
