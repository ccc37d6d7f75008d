# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The manifests of batches in the inbox, written and read in pieces."""

from __future__ import annotations

import io
import uuid
from typing import TYPE_CHECKING, Any, BinaryIO

from runqy_provider.errors import NotThere, TooLarge
from runqy_provider.inbox import keys
from runqy_provider.redis_client import client, opened, redis_errors

if TYPE_CHECKING:
    from runqy_provider.redis_connection import RedisConnection

#: Bytes of one piece.
PIECE = 1024 * 1024

#: The most bytes of a text in Redis.
MOST_BYTES = 512 * 1024 * 1024


class InboxManifest:
    """The manifest of one batch in one namespace of the inbox.

    Args:
        connection: The Redis of the inbox.
        namespace: The namespace; see ``keys``.
        batch_id: Id of the batch.
    """

    def __init__(
        self, connection: RedisConnection, namespace: str, batch_id: str
    ) -> None:
        self._connection = connection.for_namespace(namespace)
        self._key = keys.manifest(connection.in_keys(namespace), batch_id)

    def write(self, lines: BinaryIO, ttl: int) -> None:
        """Store it, in place of the one before.

        Args:
            lines: Its lines.
            ttl: Seconds for which it is kept.

        Raises:
            SinkUnavailable: Redis is unavailable.
            TooLarge: It is larger than a text in Redis may be.
        """
        # Two attempts may write at once: each has a key of its own.
        new = f"{self._key}:{uuid.uuid4().hex}"
        size = 0
        with opened(self._connection, "store the manifest of a batch") as redis:
            redis.set(new, b"", ex=ttl)
            while piece := lines.read(PIECE):
                if size + len(piece) > MOST_BYTES:
                    raise TooLarge(
                        f"The manifest has more than {MOST_BYTES:,} bytes, the most "
                        "that Redis holds under one key. Name an object store for it: "
                        "manifest='s3://bucket/prefix'."
                    )
                # Not APPEND: the client repeats a command if its answer was lost.
                redis.setrange(new, size, piece)
                size += len(piece)
            redis.rename(new, self._key)

    def size(self) -> int:
        """Return its size in bytes.

        Raises:
            NotThere: It does not exist, or has expired.
            SinkUnavailable: Redis is unavailable.
        """
        with opened(self._connection, "look for the manifest of a batch") as redis:
            if not redis.exists(self._key):
                raise NotThere(
                    f"The manifest is not in the inbox (Redis at "
                    f"{self._connection.address}, key {self._key}). It expires after "
                    "[runqy] unread_ttl_seconds."
                )
            return redis.strlen(self._key)

    def stream(self) -> BinaryIO:
        """Open it for reading; raises what ``size`` does."""
        self.size()
        return io.BufferedReader(_Pieces(self._connection, self._key), PIECE)


class _Pieces(io.RawIOBase):
    """A text in Redis as a file."""

    def __init__(self, connection: RedisConnection, key: str) -> None:
        self._connection = connection
        self._redis = client(connection)
        self._key = key
        self._at = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with redis_errors(self._connection, "read the manifest of a batch"):
            end = self._at + len(buffer) - 1
            piece: Any = self._redis.getrange(self._key, self._at, end)
        buffer[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)

    def close(self) -> None:
        if not self.closed:
            self._redis.close()
        super().close()
