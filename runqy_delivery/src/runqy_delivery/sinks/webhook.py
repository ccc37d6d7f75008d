# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Deliver by webhook: a signed POST, retried until the receiver accepts it."""

from __future__ import annotations

import json
import logging
import os
import time
from typing import TYPE_CHECKING

from runqy_delivery._http import Response, deliver_over_http, redact, retryable_error
from runqy_delivery.errors import DeliveryImpossible, ResultRefused
from runqy_delivery.signature import sign

if TYPE_CHECKING:
    from collections.abc import Mapping

log = logging.getLogger("runqy_delivery")

#: Environment variable (a runqy vault) with the secret that signs bodies.
SIGNING_SECRET_VARIABLE = "RUNQY_DELIVERY_SIGNING_SECRET"  # noqa: S105 - a name

SUCCESS = range(200, 300)
BAD_REQUEST, CONFLICT, GONE, TOO_LARGE = 400, 409, 410, 413

#: Every JSON response of the provider's receiver has one of these fields.
RECEIVER_FIELDS = frozenset({"outcome", "error"})


def headers_for(
    message_id: str, body: bytes, *, allow_unsigned: bool = False
) -> Mapping[str, str]:
    """Return the headers of a POST that is sent now.

    They include a signature if ``SIGNING_SECRET_VARIABLE`` is set.

    Args:
        message_id: Id of the message.
        body: The body.
        allow_unsigned: Omit the signature if the secret is not valid.

    Raises:
        DeliveryImpossible: The secret is not valid, and ``allow_unsigned`` is False.
    """
    headers = {"Content-Type": "application/json", "User-Agent": "runqy-delivery"}
    secret = os.environ.get(SIGNING_SECRET_VARIABLE)
    if secret:
        try:
            headers.update(sign(secret, message_id, int(time.time()), body))
        except ValueError as error:
            if allow_unsigned:
                return headers
            raise DeliveryImpossible(
                f"{SIGNING_SECRET_VARIABLE} cannot be used: {error} Check the vault of "
                "this queue."
            ) from error
    return headers


def post(
    url: str, message_id: str, body: bytes, *, allow_unsigned: bool = False
) -> None:
    """POST a delivery until the receiver accepts it.

    Args:
        url: The callback URL; a secret.
        message_id: Id of the message for the signature; a retry has the same id.
        body: The delivery as JSON.
        allow_unsigned: Omit the signature if the secret is not valid: the receiver
            may accept the delivery of a failure without one.

    Raises:
        ResultRefused: The receiver rejects the body as too large or not valid.
        DeliveryImpossible: The receiver rejects the URL, or the signing secret is not
            valid.
        DeliveryUndeliverable: The receiver could not be reached within the retry
            budget.
    """
    response = deliver_over_http(
        "POST",
        url,
        lambda: (body, headers_for(message_id, body, allow_unsigned=allow_unsigned)),
        error_in=_error_in,
    )
    _check(response, url, len(body))


def _check(response: Response, url: str, size: int) -> None:
    """Raise the error of a final response; return if the delivery is settled.

    Args:
        response: The response.
        url: The callback URL; a secret.
        size: Size of the body that was sent, in bytes.
    """
    if response.status in SUCCESS:
        return
    if response.status == CONFLICT:
        log.warning(
            "%s already has another final delivery, which is kept.", redact(url)
        )
        return
    if response.status == GONE:
        log.warning("%s: no task waits for this delivery any more.", redact(url))
        return
    if response.status == TOO_LARGE:
        raise ResultRefused(
            f"The receiver does not accept a body of {size:,} bytes. Use an "
            "object store as the sink of this task (sink='s3://bucket/prefix')."
        )
    message = (
        f"POST {redact(url)} was refused with {response.status}: {response.text[:500]}"
    )
    if response.status == BAD_REQUEST:
        raise ResultRefused(message)
    raise DeliveryImpossible(message)


def _error_in(response: Response) -> str | None:
    """Return why a POST may succeed later; None for a final response.

    A success that does not come from the receiver is an error: the delivery is lost.
    """
    error = retryable_error(response)
    if error is not None:
        return error
    is_settled = response.status in SUCCESS or response.status in {CONFLICT, GONE}
    if is_settled and not _is_from_receiver(response):
        return (
            f"{response.status}, but the response is not from the receiver (is it from "
            "a login page, or another web application?): check callback_url of the "
            f"connection in Airflow. It says: {response.text[:200]}"
        )
    return None


def _is_from_receiver(response: Response) -> bool:
    try:
        body = json.loads(response.text)
    except ValueError:
        return False
    return isinstance(body, dict) and not RECEIVER_FIELDS.isdisjoint(body)
