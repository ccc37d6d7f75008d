# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""A result as one value in somebody's storage: a field, a column, a message.

A plain JSON value stands there bare, as runqy's guide has it. Where there is more to
say (a failure, bytes, metadata, an address) a delivery stands there.
"""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

from runqy_delivery.errors import ResultRefused
from runqy_delivery.wire import Delivery

if TYPE_CHECKING:
    from runqy_delivery.result import Content

#: Room for the fields around a result, in bytes.
ENVELOPE = 1024

#: The longest that a failure is in few words, in bytes of JSON: a column of 255
#: characters takes it.
FEW_WORDS = 200


def delivery_of(
    delivery_id: str, content: Content, max_bytes: int | None, place: str
) -> bytes:
    """Return a delivery that carries its result, as JSON.

    Args:
        delivery_id: Id of the delivery.
        content: The result.
        max_bytes: The longest that the place takes; None: any length.
        place: Name of the place, for the message.

    Raises:
        ResultRefused: The result is larger than the place takes.
    """
    # Base64 is a third longer than the bytes it stands for.
    needed = content.size if content.is_json else -(-content.size * 4 // 3)
    if max_bytes is not None and needed + ENVELOPE > max_bytes:
        raise too_large(content.size, max_bytes, place)
    if content.is_json:
        # The value is JSON text already; writing it a second time could be slow.
        head = Delivery(delivery_id, metadata=content.metadata).to_json()
        body = head.replace(b'"result":null', b'"result":' + (content.data or b""), 1)
    else:
        with content.open() as stream:
            text = base64.b64encode(stream.read()).decode()
        body = Delivery(
            delivery_id,
            result=text,
            encoding="base64",
            content_type=content.content_type,
            size=content.size,
            metadata=content.metadata,
        ).to_json()
    if max_bytes is not None and len(body) > max_bytes:
        raise too_large(content.size, max_bytes, place)
    return body


def value_of(
    delivery_id: str, content: Content, max_bytes: int | None, place: str
) -> bytes:
    """Return the value that stands for a result: the result itself, if it is JSON.

    Raises:
        ResultRefused: The result is larger than the place takes.
    """
    if not content.is_json or content.metadata is not None:
        return delivery_of(delivery_id, content, max_bytes, place)
    if max_bytes is not None and content.size > max_bytes:
        raise too_large(content.size, max_bytes, place)
    return content.data or b""


def in_few_words(failure: Delivery) -> bytes:
    """Return a failure as a bare JSON text, for a place that does not take it whole.

    Task code after runqy's guide reports its failures like that, so they are read. It
    is cut to ``FEW_WORDS``, and has no characters that a database may not know.
    """
    error = failure.error
    words = "" if error is None else error.message
    if error is not None and error.type is not None:
        words = f"{error.type}: {words}"
    # PostgreSQL knows neither NUL nor half a surrogate pair.
    words = words.replace("\0", "").encode("utf-8", "replace").decode()
    short = words[:FEW_WORDS]
    while len(json.dumps(short)) > FEW_WORDS:
        short = short[:-1]
    if short != words:
        short = short[:-3] + "..."
    return json.dumps(short).encode()


def too_large(size: int, max_bytes: int, place: str) -> ResultRefused:
    """Return the error for a result that its sink does not hold."""
    return ResultRefused(
        f"The result has {size:,} bytes; {place} takes at most {max_bytes:,} with its "
        "envelope. Use an object store as the sink of this task "
        "(sink='s3://bucket/prefix')."
    )
