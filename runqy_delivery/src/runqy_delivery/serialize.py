# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Serialize a result into one value: a request body, a message, a column, a Redis key.

A JSON value is written as it is, as runqy's guide describes. Bytes, metadata, a URL and
a failure need more fields, so they are written as a delivery (an envelope).
"""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import TYPE_CHECKING

from runqy_delivery.errors import ResultRefused
from runqy_delivery.wire import Delivery

if TYPE_CHECKING:
    from runqy_delivery.result import Content

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
