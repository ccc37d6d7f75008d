# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""What a sink asks of an object store."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Listing:
    """What lies in a folder.

    Attributes:
        found: Keys, each with the time of its last change in seconds since 1970.
        pages: How many requests the listing took.
    """

    found: dict[str, float]
    pages: int = 1


@dataclass(frozen=True)
class Head:
    """What a store knows of an object.

    Attributes:
        size: In bytes.
        modified: Time of the last change, in seconds since 1970.
        content_type: Media type; None where the store keeps none.
        is_compressed: True where ``size`` is that of the compressed bytes, and
            ``stream`` gives more.
    """

    size: int
    modified: float
    content_type: str | None
    is_compressed: bool = False


@dataclass(frozen=True)
class SignedPut:
    """A URL that lets its bearer PUT one object.

    Attributes:
        url: The URL; a secret.
        headers: Headers that the PUT must have.
        ends_at: When the signer's own credentials end, and the URL with them, in
            seconds since 1970; None where they do not.
    """

    url: str = field(repr=False)
    headers: Mapping[str, str] | None = None
    ends_at: float | None = None


class ObjectStore(Protocol):
    """One bucket of one store. All calls block; all raise SinkError."""

    @property
    def url(self) -> str:
        """Where it is, without a slash at the end: ``s3://bucket``."""
        ...

    @property
    def access_hint(self) -> str:
        """What its rights come from, for messages: ``AWS connection 'aws'``."""
        ...

    def check(self, folder: str) -> None:
        """Ask whether it is there, and ours to look into.

        Args:
            folder: Where results go: rights may end there. Ends with a slash, or is
                empty.

        Raises:
            SinkError: It is not.
        """
        ...

    def list_folder(self, folder: str) -> Listing:
        """List the objects right in a folder; its name ends with a slash, or is empty.

        Raises:
            SinkError: It cannot be listed.
        """
        ...

    def find(self, key: str, suffix: str) -> Listing:
        """Look for one key, and for the same with a suffix.

        Raises:
            SinkError: It cannot be looked for.
        """
        ...

    def head(self, key: str) -> Head:
        """Return what is known of an object.

        Raises:
            NotThere: There is none.
            SinkError: It cannot be read.
        """
        ...

    def stream(self, key: str) -> BinaryIO:
        """Open an object for reading.

        Raises:
            NotThere: There is none.
            SinkError: It cannot be read.
        """
        ...

    def sign_put(self, key: str, seconds: int) -> SignedPut | None:
        """Return a URL to PUT an object to; None where the store signs none.

        Raises:
            SinkError: It cannot be signed.
        """
        ...

    def sign_get(self, key: str, seconds: int) -> str | None:
        """Return a URL to GET an object from; None where the store signs none.

        Raises:
            SinkError: It cannot be signed.
        """
        ...

    def key_of(self, url: str) -> str | None:
        """Return the key that a URL means in this bucket; None: it means none here.

        Raises:
            BadDelivery: It cannot be read as a URL.
        """
        ...
