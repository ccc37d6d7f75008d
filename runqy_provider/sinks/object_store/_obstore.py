# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""What the stores that are reached by obstore share."""

from __future__ import annotations

import abc
import io
import re
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import obstore
from airflow.sdk import BaseHook
from obstore.exceptions import (
    BaseError,
    GenericError,
    PermissionDeniedError,
    UnauthenticatedError,
)

from runqy_provider.errors import Misconfigured, NoAccess, NotThere, SinkUnavailable
from runqy_provider.sinks.object_store.base import Head, Listing
from runqy_provider.sinks.object_store.clients import shared_client

if TYPE_CHECKING:
    from collections.abc import Iterator

    from obstore.store import ClientConfig, RetryConfig

    from runqy_provider.connections import ConnectionLike

#: How many names one request for a listing brings.
PAGE = 1000

#: Bytes that one request of a stream brings.
CHUNK = 8 * 1024 * 1024

#: A look is tried again at the next sweep anyway.
RETRIES: RetryConfig = {"max_retries": 2, "retry_timeout": timedelta(seconds=20)}
CLIENT: ClientConfig = {"timeout": "60s", "connect_timeout": "10s"}

_STATUS = re.compile(r"status code: (\d{3})")
_MISSING, _DENIED = frozenset({"404"}), frozenset({"401", "403"})


@dataclass(frozen=True)
class ObstoreStore(abc.ABC):
    """A bucket that obstore reaches.

    Args:
        bucket: Its name.
        conn_id: The Airflow connection.
    """

    bucket: str
    conn_id: str

    @property
    @abc.abstractmethod
    def url(self) -> str:
        """Where it is."""

    @property
    @abc.abstractmethod
    def access_hint(self) -> str:
        """What its rights come from."""

    @abc.abstractmethod
    def make(self, connection: ConnectionLike) -> Any:
        """Return obstore's client for the bucket.

        Raises:
            Misconfigured: The connection uses what we do not know.
        """

    def check(self, folder: str) -> None:  # noqa: ARG002 - see below
        """Ask whether the bucket is there and ours."""
        with self._errors("use the bucket"):
            # A folder that no delivery has: short, wherever results are.
            obstore.list_with_delimiter(self._client(), "runqy-check")

    def list_folder(self, folder: str) -> Listing:
        """List the objects right in a folder."""
        with self._errors("list", folder):
            listed = obstore.list_with_delimiter(self._client(), folder or None)
        found = {
            str(item["path"]): item["last_modified"].timestamp()
            for item in listed["objects"]
        }
        return Listing(found, 1 + len(found) // PAGE)

    def find(self, key: str, suffix: str) -> Listing:
        """Look for a key, and for the same with a suffix."""
        found: dict[str, float] = {}
        for name in (key, key + suffix):
            with self._errors("look for", name):
                try:
                    head = obstore.head(self._client(), name)
                except FileNotFoundError:
                    continue
            found[name] = head["last_modified"].timestamp()
        return Listing(found, 2)

    def head(self, key: str) -> Head:
        """Return what is known of an object."""
        with self._errors("read", key):
            # The media type comes with a request for the object, none of it is read.
            got = obstore.get(self._client(), key, options={"head": True})
        content_type = got.attributes.get("Content-Type")
        modified = got.meta["last_modified"].timestamp()
        return Head(got.meta["size"], modified, content_type and str(content_type))

    def stream(self, key: str) -> BinaryIO:
        """Open an object for reading."""
        with self._errors("read", key):
            reader = obstore.open_reader(self._client(), key, buffer_size=CHUNK)
        return cast("BinaryIO", io.BufferedReader(_Raw(self, key, reader), CHUNK))

    def _sign(self, method: Any, key: str, seconds: int) -> str:
        with self._errors("sign a URL for", key):
            try:
                return str(
                    obstore.sign(
                        self._client(), method, key, timedelta(seconds=seconds)
                    )
                )
            except (GenericError, ValueError) as error:
                raise NoAccess(
                    f"Could not sign a URL for {self.url}/{key}: {_words(error)}. "
                    f"Give {self.access_hint} a key that can sign, or do without "
                    "signed URLs (sink option presign=false), with rights of the "
                    "workers' own."
                ) from error

    def _client(self) -> Any:
        return shared_client(
            f"{self.access_hint} and {self.url}", lambda _: self._made()
        )

    def _made(self) -> Any:
        connection = BaseHook.get_connection(self.conn_id)
        try:
            return self.make(connection)
        except Misconfigured:
            raise
        except (BaseError, ValueError, OSError) as error:
            # Nothing was sent yet: it is what stands in the connection.
            raise Misconfigured(
                f"No client for {self.url} can be made of {self.access_hint}: "
                f"{_words(error)}"
            ) from error

    @contextmanager
    def _errors(self, what: str, key: str = "") -> Iterator[None]:
        place = f"{self.url}/{key}" if key else self.url
        try:
            yield
        except FileNotFoundError as error:
            raise NotThere(
                f"Could not {what} {place}: it does not exist. Check the name in the "
                f"sink, and {self.access_hint}."
            ) from error
        except (BaseError, OSError) as error:
            found = _STATUS.search(str(error))
            status = found[1] if found else ""
            refused = isinstance(error, (PermissionDeniedError, UnauthenticatedError))
            if refused or status in _DENIED:
                raise NoAccess(
                    f"Could not {what} {place}: access denied. Check the rights of "
                    f"{self.access_hint}: it must list, read and write there."
                ) from error
            if status in _MISSING:
                raise NotThere(
                    f"Could not {what} {place}: it does not exist. Check the name in "
                    f"the sink, and {self.access_hint}."
                ) from error
            raise SinkUnavailable(
                f"Could not {what} {place}: {_words(error)}"
            ) from error


class _Raw(io.RawIOBase):
    """A reader of obstore's as one of Python's, with our errors."""

    def __init__(self, store: ObstoreStore, key: str, reader: Any) -> None:
        self._store, self._key, self._reader = store, key, reader

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with self._store._errors("read", self._key):  # noqa: SLF001 - its other half
            data = bytes(self._reader.read(len(buffer)))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._reader.close()
        super().close()


def _words(error: BaseException) -> str:
    """Return an error's first words, without queries: they may hold signatures."""
    words = str(error).partition("\n\nDebug source")[0].strip()
    return re.sub(r"\?[^\s\"']*", "", " ".join(words.split()))[:500]


def refuse_fields(connection: ConnectionLike, given: list[str], known: str) -> None:
    """Refuse a connection that gets its rights in a way we do not speak.

    Raises:
        Misconfigured: There is such a field.
    """
    if given:
        raise Misconfigured(
            f"Connection {connection.conn_id!r} uses {', '.join(given)}, which sinks "
            f"do not. They know {known}."
        )
