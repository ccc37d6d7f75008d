# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Base class of the stores that are accessed through the library obstore."""

from __future__ import annotations

import abc
import io
import re
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar, cast

import obstore
from obstore.exceptions import (
    BaseError,
    GenericError,
    PermissionDeniedError,
    UnauthenticatedError,
)

from runqy_provider.airflow_compat import get_connection
from runqy_provider.errors import Misconfigured, NoAccess, NotThere, SinkUnavailable
from runqy_provider.sinks.object_store.base import Head, Listing, shared_client

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from obstore.store import ClientConfig, RetryConfig

    from runqy_provider.connections import ConnectionLike

#: How many keys one request of a listing returns.
PAGE_SIZE = 1000

#: How many bytes one request of a stream returns.
CHUNK_SIZE = 8 * 1024 * 1024

#: Few retries: a failed poll is repeated after the interval anyway.
RETRIES: RetryConfig = {"max_retries": 2, "retry_timeout": timedelta(seconds=20)}
CLIENT: ClientConfig = {"timeout": "60s", "connect_timeout": "10s"}

#: The longest text of an error that is quoted, in characters.
MAX_ERROR_LENGTH = 500

#: A folder that is always empty, as its name is not a delivery id.
_PROBE_FOLDER = "runqy-check"

_STATUS = re.compile(r"status code: (\d{3})")
_MISSING, _DENIED = frozenset({"404"}), frozenset({"401", "403"})


@dataclass(frozen=True)
class ObstoreStore(abc.ABC):
    """A bucket that is accessed through obstore.

    Args:
        bucket: Name of the bucket.
        conn_id: The Airflow connection.
    """

    #: The scheme of its URIs, the service, and obstore's class of clients.
    scheme: ClassVar[str]
    service: ClassVar[str]
    client_class: ClassVar[Callable[..., Any]]

    bucket: str
    conn_id: str

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.bucket}"

    @property
    def access_hint(self) -> str:
        return f"{self.service} connection {self.conn_id!r}"

    @abc.abstractmethod
    def read_config(self, connection: ConnectionLike) -> tuple[Any, bool]:
        """Return obstore's configuration, and whether its endpoint has no TLS.

        Raises:
            Misconfigured: The connection has a field that is not supported.
        """

    def check(self, folder: str) -> None:  # noqa: ARG002 - a probe folder does
        with self._errors("use the bucket"):
            obstore.list_with_delimiter(self._client(), _PROBE_FOLDER)

    def list_folder(self, folder: str) -> Listing:
        with self._errors("list", folder):
            listed = obstore.list_with_delimiter(self._client(), folder or None)
        keys = {
            str(item["path"]): item["last_modified"].timestamp()
            for item in listed["objects"]
        }
        return Listing(keys, 1 + len(keys) // PAGE_SIZE)

    def list_below(self, folder: str, most_pages: int) -> Listing | None:
        keys: dict[str, float] = {}
        most = most_pages * PAGE_SIZE
        with self._errors("list", folder):
            chunks = obstore.list(
                self._client(), prefix=folder or None, chunk_size=PAGE_SIZE
            )
            for chunk in chunks:
                for item in chunk:
                    keys[str(item["path"])] = item["last_modified"].timestamp()
                if len(keys) > most:
                    return None
        return Listing(keys, 1 + len(keys) // PAGE_SIZE)

    def find(self, key: str, suffix: str) -> Listing:
        keys: dict[str, float] = {}
        for name in (key, key + suffix):
            with self._errors("look for", name):
                try:
                    head = obstore.head(self._client(), name)
                except FileNotFoundError:
                    continue
            keys[name] = head["last_modified"].timestamp()
        return Listing(keys, 2)

    def head(self, key: str) -> Head:
        with self._errors("read", key):
            # A GET whose body is not read: obstore.head returns no media type.
            got = obstore.get(self._client(), key, options={"head": True})
        content_type = got.attributes.get("Content-Type")
        modified = got.meta["last_modified"].timestamp()
        return Head(got.meta["size"], modified, content_type and str(content_type))

    def stream(self, key: str) -> BinaryIO:
        with self._errors("read", key):
            reader = obstore.open_reader(self._client(), key, buffer_size=CHUNK_SIZE)
        return cast("BinaryIO", io.BufferedReader(_Raw(self, key, reader), CHUNK_SIZE))

    def write(self, key: str, content: BinaryIO, content_type: str) -> None:
        """Store an object, in parts if it is large."""
        attributes = {"Content-Type": content_type}
        with self._errors("write", key):
            obstore.put(self._client(), key, content, attributes=attributes)

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
                    f"Could not sign a URL for {self.url}/{key}: {_message(error)}. "
                    f"Give {self.access_hint} a key that can sign, or turn signed URLs "
                    "off (sink option presign=false) and give the workers credentials "
                    "of their own."
                ) from error

    def _client(self) -> Any:
        return shared_client(
            f"{self.access_hint} and {self.url}", lambda _: self._new_client()
        )

    def _new_client(self) -> Any:
        connection = get_connection(self.conn_id)
        try:
            config, is_plain = self.read_config(connection)
            return self.client_class(
                self.bucket,
                config=config,
                client_options={**CLIENT, "allow_http": is_plain},
                retry_config=RETRIES,
            )
        except Misconfigured:
            raise
        except (BaseError, ValueError, OSError) as error:
            # Nothing was sent yet, so a field of the connection is wrong.
            raise Misconfigured(
                f"Could not create a client for {self.url} from {self.access_hint}: "
                f"{_message(error)}. Check the fields of the connection."
            ) from error

    @contextmanager
    def _errors(self, operation: str, key: str = "") -> Iterator[None]:
        location = f"{self.url}/{key}" if key else self.url
        try:
            yield
        except FileNotFoundError as error:
            raise self._not_there(operation, location) from error
        except (BaseError, OSError) as error:
            found = _STATUS.search(str(error))
            status = found[1] if found else ""
            is_denied = isinstance(error, (PermissionDeniedError, UnauthenticatedError))
            if is_denied or status in _DENIED:
                raise NoAccess(
                    f"Could not {operation} {location}: access denied. Check the "
                    f"permissions of {self.access_hint}: it must be able to list, read "
                    "and write there."
                ) from error
            if status in _MISSING:
                raise self._not_there(operation, location) from error
            raise SinkUnavailable(
                f"Could not {operation} {location}: {_message(error)}"
            ) from error

    def _not_there(self, operation: str, location: str) -> NotThere:
        return NotThere(
            f"Could not {operation} {location}: it does not exist. Check the name in "
            f"the sink, and {self.access_hint}."
        )


class _Raw(io.RawIOBase):
    """An obstore reader as a file object that raises our errors."""

    def __init__(self, store: ObstoreStore, key: str, reader: Any) -> None:
        self._store, self._key, self._reader = store, key, reader

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with self._store._errors("read", self._key):  # noqa: SLF001 - of this module
            data = bytes(self._reader.read(len(buffer)))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._reader.close()
        super().close()


def _message(error: BaseException) -> str:
    """Return the start of an error, without URL queries: they may hold signatures."""
    message = str(error).partition("\n\nDebug source")[0].strip()
    message = re.sub(r"\?[^\s\"']*", "", " ".join(message.split()))
    return message[:MAX_ERROR_LENGTH]


def refuse_fields(connection: ConnectionLike, given: list[str], known: str) -> None:
    """Refuse a connection that authenticates in a way that sinks do not support.

    Args:
        connection: The connection.
        given: Names of its fields that are not supported.
        known: The supported fields, for the message.

    Raises:
        Misconfigured: ``given`` is not empty.
    """
    if given:
        raise Misconfigured(
            f"Connection {connection.conn_id!r} uses {', '.join(given)}, which sinks "
            f"do not support. Use one of: {known}."
        )
