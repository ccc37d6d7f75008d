# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""What task code returns, and how it becomes bytes to send."""

from __future__ import annotations

import json
import mimetypes
import os
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from runqy_delivery import json_fields as fields
from runqy_delivery.errors import ResultRefused

if TYPE_CHECKING:
    from collections.abc import Mapping

JSON_TYPE = "application/json"
BYTES_TYPE = "application/octet-stream"


@dataclass(frozen=True)
class Result:
    """A result with words about it.

    Args:
        value: A JSON value, ``bytes``, or a path (``pathlib.Path``) to a file; with
            another content type than JSON's, a text stands for its UTF-8.
        content_type: Media type; guessed from a path's ending where not given.
        metadata: A small JSON object that travels with the result.
    """

    value: Any
    content_type: str | None = None
    metadata: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Content:
    """The result as bytes, not yet read into memory if it is a file."""

    content_type: str
    size: int
    metadata: Mapping[str, Any] | None = None
    data: bytes | None = field(default=None, repr=False)
    path: str | None = None

    def open(self) -> BinaryIO:
        """Return a stream over the bytes, from their start."""
        if self.path is not None:
            return Path(self.path).open("rb")
        return BytesIO(self.data or b"")

    @property
    def is_json(self) -> bool:
        """True where the bytes are a JSON value."""
        return self.content_type == JSON_TYPE and self.path is None


def content_of(returned: Any) -> Content:
    """Turn what ``handle`` returned into content.

    Raises:
        ResultRefused: It is not JSON, or the file is not there.
    """
    result = returned if isinstance(returned, Result) else Result(returned)
    value = result.value
    metadata = _checked_metadata(result.metadata)
    if isinstance(value, (bytes, bytearray, memoryview)):
        data = bytes(value)
        kind = result.content_type or BYTES_TYPE
        if kind == JSON_TYPE:
            _check_json(data)
        return Content(kind, len(data), metadata, data=data)
    if isinstance(value, os.PathLike):
        path = os.fspath(value)
        try:
            size = Path(path).stat().st_size
            with Path(path).open("rb"):
                pass
        except OSError as error:
            raise ResultRefused(
                f"handle returned the path {path!r}, which cannot be read: {error}"
            ) from error
        kind = result.content_type or mimetypes.guess_type(path)[0] or BYTES_TYPE
        return Content(kind, size, metadata, path=path)
    if isinstance(value, str) and result.content_type not in (None, JSON_TYPE):
        # A page, a table: a text of its own kind is no JSON value.
        data = value.encode("utf-8", "replace")
        return Content(str(result.content_type), len(data), metadata, data=data)
    data = _dump(value, "handle returned a value that is not JSON")
    return Content(result.content_type or JSON_TYPE, len(data), metadata, data=data)


def _check_json(data: bytes) -> None:
    try:
        # Read as strictly as where it goes to: no other encoding, no NaN.
        json.loads(
            data.decode(),
            parse_constant=fields.refuse_constant,
            parse_float=fields.finite,
        )
    except (ValueError, RecursionError) as error:
        raise ResultRefused(
            f"handle returned bytes that it calls {JSON_TYPE}, and they are not: "
            f"{error}"
        ) from error


def _checked_metadata(metadata: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    if metadata is not None:
        _dump(dict(metadata), "The metadata of the result is not JSON")
    return metadata


def _dump(value: Any, what: str) -> bytes:
    try:
        return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ResultRefused(
            f"{what}: {error}. Return JSON values, bytes, a pathlib.Path, or a "
            "Result of one of them."
        ) from error
