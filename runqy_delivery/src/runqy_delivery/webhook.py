# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Deliver by webhook: one signed POST, repeated until it is taken."""

from __future__ import annotations

import base64
import logging
import os
import time
from typing import TYPE_CHECKING

from runqy_delivery.errors import DeliveryUndeliverable, ResultRefused
from runqy_delivery.http import deliver_over_http, show
from runqy_delivery.signature import sign
from runqy_delivery.wire import Delivery

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runqy_delivery.result import Content

log = logging.getLogger("runqy_delivery")

#: Environment variable (a runqy vault) with the secret that signs bodies.
SIGNING_SECRET_VARIABLE = "RUNQY_DELIVERY_SIGNING_SECRET"  # noqa: S105 - a name

SUCCESS = range(200, 300)
CONFLICT, GONE, TOO_LARGE = 409, 410, 413

#: Room for the fields around a result, in bytes.
ENVELOPE = 1024


def delivery_with_content(
    delivery_id: str, content: Content, max_bytes: int | None
) -> bytes:
    """Return the body of a delivery that carries its result.

    Raises:
        ResultRefused: The result is larger than the receiver takes.
    """
    # Base64 is a third longer than the bytes it stands for.
    needed = content.size if content.is_json else -(-content.size * 4 // 3)
    if max_bytes is not None and needed + ENVELOPE > max_bytes:
        raise _too_large(content.size, max_bytes)
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
        raise _too_large(content.size, max_bytes)
    return body


def post(url: str, message_id: str, body: bytes) -> None:
    """POST a delivery until it is taken.

    Args:
        url: The capability URL.
        message_id: Id of the message for the signature; the same when sent again.
        body: The delivery as JSON.

    Raises:
        ResultRefused: The receiver says that the body is too large.
        DeliveryUndeliverable: Nobody took it, or the receiver refuses it.
    """
    secret = os.environ.get(SIGNING_SECRET_VARIABLE)

    def make_body() -> tuple[bytes, Mapping[str, str]]:
        headers = {"Content-Type": "application/json", "User-Agent": "runqy-delivery"}
        if secret:
            headers.update(sign(secret, message_id, int(time.time()), body))
        return body, headers

    answer = deliver_over_http("POST", url, make_body)
    if answer.status in SUCCESS:
        return
    if answer.status == CONFLICT:
        log.warning("%s has another final delivery already: it stays.", show(url))
        return
    if answer.status == GONE:
        log.warning("%s: nobody waits for this delivery any more.", show(url))
        return
    if answer.status == TOO_LARGE:
        raise ResultRefused(
            f"The receiver takes no body of {len(body):,} bytes. Use an object store "
            "as the sink of this task (sink='s3://bucket/prefix')."
        )
    raise DeliveryUndeliverable(
        f"POST {show(url)} was refused with {answer.status}: {answer.text[:500]}"
    )


def _too_large(size: int, max_bytes: int) -> ResultRefused:
    return ResultRefused(
        f"The result has {size:,} bytes; the webhook takes at most {max_bytes:,} with "
        "its envelope. Use an object store as the sink of this task "
        "(sink='s3://bucket/prefix')."
    )
