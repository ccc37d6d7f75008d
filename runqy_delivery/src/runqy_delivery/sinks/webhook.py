# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Deliver by webhook: one signed POST, repeated until it is taken."""

from __future__ import annotations

import json
import logging
import os
import time
from typing import TYPE_CHECKING

from runqy_delivery._http import Answer, deliver_over_http, show, worth_trying_again
from runqy_delivery.errors import DeliveryImpossible, ResultRefused
from runqy_delivery.signature import sign

if TYPE_CHECKING:
    from collections.abc import Mapping

log = logging.getLogger("runqy_delivery")

#: Environment variable (a runqy vault) with the secret that signs bodies.
SIGNING_SECRET_VARIABLE = "RUNQY_DELIVERY_SIGNING_SECRET"  # noqa: S105 - a name

SUCCESS = range(200, 300)
BAD, CONFLICT, GONE, TOO_LARGE = 400, 409, 410, 413

#: Names of which our receiver's answers have at least one.
RECEIVERS_OWN = frozenset({"outcome", "error"})


def headers_for(
    message_id: str, body: bytes, *, even_unsigned: bool = False
) -> Mapping[str, str]:
    """Return the headers of a POST made now, signed where the environment says so.

    Args:
        message_id: Id of the message.
        body: The body.
        even_unsigned: Leave the signature out where it cannot be made.

    Raises:
        DeliveryImpossible: The secret in the environment cannot be used.
    """
    headers = {"Content-Type": "application/json", "User-Agent": "runqy-delivery"}
    secret = os.environ.get(SIGNING_SECRET_VARIABLE)
    if secret:
        try:
            headers.update(sign(secret, message_id, int(time.time()), body))
        except ValueError as error:
            if even_unsigned:
                return headers
            raise DeliveryImpossible(
                f"{SIGNING_SECRET_VARIABLE} cannot be used: {error} Check the vault of "
                "this queue."
            ) from error
    return headers


def post(
    url: str, message_id: str, body: bytes, *, even_unsigned: bool = False
) -> None:
    """POST a delivery until it is taken.

    Args:
        url: The capability URL.
        message_id: Id of the message for the signature; the same when sent again.
        body: The delivery as JSON.
        even_unsigned: See ``headers_for``: a failure is worth a try without.

    Raises:
        ResultRefused: The receiver says that the body is too large, or cannot be read:
            it would say so again.
        DeliveryImpossible: The receiver refuses the address, or the secret that signs
            cannot be used.
        DeliveryUndeliverable: Nobody took it.
    """
    answer = deliver_over_http(
        "POST",
        url,
        lambda: (body, headers_for(message_id, body, even_unsigned=even_unsigned)),
        trouble_in=_trouble_in,
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
    raise DeliveryImpossible(words)


def _trouble_in(answer: Answer) -> str | None:
    """Return why to try again: nobody but our receiver can take a delivery."""
    trouble = worth_trying_again(answer)
    if trouble is not None:
        return trouble
    if answer.status in (*SUCCESS, CONFLICT, GONE) and not _is_of_receiver(answer):
        return (
            f"{answer.status}, but whoever answered is not the receiver (a login page, "
            "or another web application?): check callback_url of the connection in "
            f"Airflow. It said: {answer.text[:200]}"
        )
    return None


def _is_of_receiver(answer: Answer) -> bool:
    try:
        said = json.loads(answer.text)
    except ValueError:
        return False
    return isinstance(said, dict) and not RECEIVERS_OWN.isdisjoint(said)
