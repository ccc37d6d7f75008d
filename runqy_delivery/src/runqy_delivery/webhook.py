# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Deliver by webhook: one signed POST, repeated until it is taken."""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING

from runqy_delivery.errors import DeliveryUndeliverable, ResultRefused
from runqy_delivery.http import deliver_over_http, show
from runqy_delivery.signature import sign

if TYPE_CHECKING:
    from collections.abc import Mapping

log = logging.getLogger("runqy_delivery")

#: Environment variable (a runqy vault) with the secret that signs bodies.
SIGNING_SECRET_VARIABLE = "RUNQY_DELIVERY_SIGNING_SECRET"  # noqa: S105 - a name

SUCCESS = range(200, 300)
BAD, CONFLICT, GONE, TOO_LARGE = 400, 409, 410, 413


def headers_for(message_id: str, body: bytes) -> Mapping[str, str]:
    """Return the headers of a POST made now, signed where the environment says so.

    Raises:
        DeliveryUndeliverable: The secret in the environment is none.
    """
    headers = {"Content-Type": "application/json", "User-Agent": "runqy-delivery"}
    secret = os.environ.get(SIGNING_SECRET_VARIABLE)
    if secret:
        try:
            headers.update(sign(secret, message_id, int(time.time()), body))
        except ValueError as error:
            raise DeliveryUndeliverable(
                f"{SIGNING_SECRET_VARIABLE} cannot be used: {error} Check the vault of "
                "this queue."
            ) from error
    return headers


def post(url: str, message_id: str, body: bytes) -> None:
    """POST a delivery until it is taken.

    Args:
        url: The capability URL.
        message_id: Id of the message for the signature; the same when sent again.
        body: The delivery as JSON.

    Raises:
        ResultRefused: The receiver says that the body is too large, or cannot be read:
            it would say so again.
        DeliveryUndeliverable: Nobody took it, or the receiver refuses it.
    """
    answer = deliver_over_http(
        "POST", url, lambda: (body, headers_for(message_id, body))
    )
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
    words = f"POST {show(url)} was refused with {answer.status}: {answer.text[:500]}"
    if answer.status == BAD:
        raise ResultRefused(words)
    raise DeliveryUndeliverable(words)
