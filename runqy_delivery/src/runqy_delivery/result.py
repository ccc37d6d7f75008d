# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Convert what task code returns into bytes to send: its content, and one value of it.

A JSON value is written as it is, as runqy's guide describes. Bytes, metadata, a URL and
a failure need more fields, so they are written as a delivery (an envelope).
"""

from __future__ import annotations

import base64
import json
import mimetypes
import os
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from runqy_delivery import json_fields
from runqy_delivery.errors import ResultNotEncodable, ResultRefused
from runqy_delivery.json_encoder import JsonEncoder
from runqy_delivery.wire import Delivery

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


#: Allowance for the fields of the envelope, in bytes.
ENVELOPE_BYTES = 1024

#: The longest short failure, in bytes of JSON: it fits into a column of 255 characters.
MAX_SHORT_FAILURE = 200


def delivery_of(
    delivery_id: str, content: Content, max_bytes: int | None, sink: str
) -> bytes:
    """Return a delivery that carries its result, as JSON.

    Args:
        delivery_id: Id of the delivery.
        content: The result.
        max_bytes: The largest value that the sink accepts, in bytes; None: no limit.
        sink: Name of the sink, for the error message.

    Raises:
        ResultRefused: The result is larger than the sink accepts.
    """
    # Base64 is a third longer than the bytes.
    needed = content.size if content.is_json else -(-content.size * 4 // 3)
    if max_bytes is not None and needed + ENVELOPE_BYTES > max_bytes:
        raise too_large(content.size, max_bytes, sink)
    wrap = _json_envelope if content.is_json else _base64_envelope
    delivery = wrap(delivery_id, content)
    if max_bytes is not None and len(delivery) > max_bytes:
        raise too_large(content.size, max_bytes, sink)
    return delivery


def value_of(
    delivery_id: str, content: Content, max_bytes: int | None, sink: str
) -> bytes:
    """Return a JSON result as it is, and any other result as a delivery.

    Args:
        delivery_id: Id of the delivery.
        content: The result.
        max_bytes: The largest value that the sink accepts, in bytes; None: no limit.
        sink: Name of the sink, for the error message.

    Raises:
        ResultRefused: The result is larger than the sink accepts.
    """
    if not content.is_json or content.metadata is not None:
        return delivery_of(delivery_id, content, max_bytes, sink)
    if max_bytes is not None and content.size > max_bytes:
        raise too_large(content.size, max_bytes, sink)
    return content.data or b""


def message_of(delivery: Delivery, max_bytes: int | None = None) -> bytes:
    """Return a delivery as JSON; its log is shortened if it would be too large.

    Args:
        delivery: The delivery.
        max_bytes: The largest message that the sink accepts, in bytes; None: no limit.
    """
    return with_log(replace(delivery, log=None).to_json(), delivery.log, max_bytes)


def with_log(body: bytes, log: str | None, max_bytes: int | None) -> bytes:
    """Return a delivery with a log, or with the end of it that fits.

    Args:
        body: The delivery as JSON, without a log.
        log: The log; None without one.
        max_bytes: The largest message that the sink accepts, in bytes; None: no limit.
    """
    start, end = b',"log":', b"}"
    if log and max_bytes is not None:
        log = _last_lines(log, max_bytes - len(body) - len(start + end))
    if not log:
        return body
    # The body is not parsed: its result may be large.
    return body[:-1] + start + json.dumps(log).encode() + end


def short_failure(failure: Delivery) -> bytes:
    """Return a failure as one JSON string, for a column that rejects the delivery.

    Task code that follows runqy's guide reports its failures as a string, so readers
    accept it. It is cut to ``MAX_SHORT_FAILURE`` bytes, and characters that PostgreSQL
    rejects are removed or replaced.
    """
    error = failure.error
    message = "" if error is None else error.message
    if error is not None and error.type is not None:
        message = f"{error.type}: {message}"
    # PostgreSQL accepts neither NUL nor unpaired surrogates.
    message = message.replace("\0", "").encode("utf-8", "replace").decode()
    short = message[:MAX_SHORT_FAILURE]
    while len(json.dumps(short)) > MAX_SHORT_FAILURE:
        short = short[:-1]
    if short != message:
        short = short[:-3] + "..."
    return json.dumps(short).encode()


def too_large(size: int, max_bytes: int, sink: str) -> ResultRefused:
    """Return the error for a result that is larger than its sink accepts.

    Args:
        size: Size of the result, in bytes.
        max_bytes: What the sink accepts, in bytes.
        sink: Name of the sink.
    """
    return ResultRefused(
        f"The result has {size:,} bytes; {sink} accepts at most {max_bytes:,} with its "
        "envelope. Use an object store as the sink of this task "
        "(sink='s3://bucket/prefix')."
    )


def _last_lines(log: str, max_bytes: int) -> str:
    """Return the last lines of a log that have at most ``max_bytes`` as a JSON text."""
    if len(json.dumps(log)) <= max_bytes:
        return log
    lines = log.split("\n")
    left = max_bytes - len('""')
    first = len(lines)
    while first > 0:
        left -= len(json.dumps(lines[first - 1] + "\n")) - len('""')
        if left < 0:
            break
        first -= 1
    return "\n".join(lines[first:])


def _json_envelope(delivery_id: str, content: Content) -> bytes:
    # The result is JSON text already; parsing and writing it again could be slow.
    envelope = Delivery(delivery_id, metadata=content.metadata).to_json()
    return envelope.replace(b'"result":null', b'"result":' + (content.data or b""), 1)


def _base64_envelope(delivery_id: str, content: Content) -> bytes:
    with content.open() as stream:
        text = base64.b64encode(stream.read()).decode()
    return Delivery(
        delivery_id,
        result=text,
        encoding="base64",
        content_type=content.content_type,
        size=content.size,
        metadata=content.metadata,
    ).to_json()
