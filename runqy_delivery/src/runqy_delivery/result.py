# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Convert what task code returns into bytes to send."""

from __future__ import annotations

import json
import mimetypes
import os
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from runqy_delivery import json_fields
from runqy_delivery.errors import ResultNotEncodable, ResultRefused
from runqy_delivery.json_encoder import JsonEncoder
from runqy_delivery.serialize import value_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runqy_delivery.wire import DeliveryRequest

JSON_TYPE = "application/json"
BYTES_TYPE = "application/octet-stream"


@dataclass(frozen=True)
class Result:
    """A result together with its content type and metadata.

    Args:
        value: A JSON value, ``bytes``, or a path (``pathlib.Path``) to a file. With a
            content type other than JSON's, a string is sent as its UTF-8 bytes. In a
            JSON value, other types are written as ``encode_default`` describes.
        content_type: Media type; by default JSON's for a JSON value, guessed from the
            suffix for a path, and ``application/octet-stream`` for bytes.
        metadata: A small JSON object that is sent with the result.
    """

    value: Any
    content_type: str | None = None
    metadata: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Content:
    """A result as bytes; the bytes of a file are read only when they are sent.

    Attributes:
        content_type: Media type.
        size: Number of bytes.
        metadata: JSON object that is sent with the result; None without one.
        data: The bytes; None if they are in a file.
        path: Path of the file; None if the bytes are in ``data``.
    """

    content_type: str
    size: int
    metadata: Mapping[str, Any] | None = None
    data: bytes | None = field(default=None, repr=False)
    path: str | None = None

    def open(self) -> BinaryIO:
        """Return a binary stream from the first byte on; the caller closes it."""
        if self.path is not None:
            return Path(self.path).open("rb")
        return BytesIO(self.data or b"")

    def to_text(self, request: DeliveryRequest) -> bytes:
        """Return the content as one JSON text in UTF-8, for sinks that hold texts.

        A JSON value without metadata is written as it is, and all else as a delivery,
        which carries it.

        Args:
            request: The delivery request.

        Raises:
            ResultRefused: It is larger than the request's ``max_bytes``.
        """
        sink = f"the sink {request.sink!r}"
        return value_of(request.delivery_id, self, request.max_bytes, sink)

    @property
    def is_json(self) -> bool:
        """True if ``data`` is a JSON value."""
        return self.content_type == JSON_TYPE and self.path is None


def content_of(returned: Any, encoder: JsonEncoder | None = None) -> Content:
    """Convert what ``handle`` returned into content.

    Args:
        returned: A ``Result``, or one of the values that it may have.
        encoder: Writes the value and its metadata as JSON; the default one if None.

    Raises:
        ResultNotEncodable: JSON has no form for a part of the value or its metadata.
        ResultRefused: Bytes are not the JSON that they should be, or a file cannot be
            read.
    """
    try:
        return _content_of(returned, encoder or JsonEncoder())
    except ResultNotEncodable as error:
        error.returned = returned
        raise


def _content_of(returned: Any, encoder: JsonEncoder) -> Content:
    result = returned if isinstance(returned, Result) else Result(returned)
    value, content_type = result.value, result.content_type
    metadata = None
    if result.metadata is not None:
        # As it is written, so that every message can hold it.
        metadata = json.loads(encoder.dump(dict(result.metadata), "metadata"))
    if isinstance(value, os.PathLike):
        return _content_of_file(os.fspath(value), content_type, metadata)
    if isinstance(value, (bytes, bytearray, memoryview)):
        data = bytes(value)
        content_type = content_type or BYTES_TYPE
        if content_type == JSON_TYPE:
            _check_json(data)
    elif isinstance(value, str) and content_type not in {None, JSON_TYPE}:
        data = value.encode("utf-8", "replace")
    else:
        data = encoder.dump(value)
        content_type = content_type or JSON_TYPE
    return Content(str(content_type), len(data), metadata, data=data)


def _content_of_file(
    path: str, content_type: str | None, metadata: Mapping[str, Any] | None
) -> Content:
    try:
        size = Path(path).stat().st_size
        with Path(path).open("rb"):
            pass
    except OSError as error:
        raise ResultRefused(
            f"handle returned the path {path!r}, which cannot be read: {error}"
        ) from error
    content_type = content_type or mimetypes.guess_type(path)[0] or BYTES_TYPE
    return Content(content_type, size, metadata, path=path)


def _check_json(data: bytes) -> None:
    try:
        # As strict as the readers of the result: UTF-8 only, no NaN.
        json.loads(
            data.decode(),
            parse_constant=json_fields.refuse_constant,
            parse_float=json_fields.finite,
        )
    except (ValueError, RecursionError) as error:
        raise ResultRefused(
            f"handle returned bytes with the content type {JSON_TYPE} that are not "
            f"valid JSON: {error}"
        ) from error
