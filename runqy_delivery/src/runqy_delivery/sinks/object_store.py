# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Deliver into an object store: by a signed URL, or with the worker's own rights."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from runqy_delivery.errors import (
    DeliveryImpossible,
    DeliveryUndeliverable,
    ResultRefused,
)
from runqy_delivery.sinks import uploads as own_rights
from runqy_delivery.sinks.signed_url import Expired, put_signed

if TYPE_CHECKING:
    from runqy_delivery.result import Content
    from runqy_delivery.wire import DeliveryRequest

log = logging.getLogger("runqy_delivery")

#: The sinks that are object stores, and the largest object that each takes in one PUT,
#: in bytes.
LARGEST_PUT = {
    "s3": 5 * 1024**3,
    "gs": 5 * 1024**4,
    "abfs": 5000 * 1024**2,
    "file": 0,
}


def put(request: DeliveryRequest, content: Content, *, failed: bool = False) -> None:
    """Store content where a request says, streaming files.

    Args:
        request: The delivery request.
        content: What to store.
        failed: Store it under the key for a failure, not under the result's.

    Raises:
        ResultRefused: The result is larger than one PUT, and no client is installed.
        DeliveryImpossible: It can never be stored as things are set up.
        DeliveryUndeliverable: It could not be stored.
    """
    kind, bucket = request.sink, request.bucket
    key = request.failed_key if failed else request.key
    put_url = request.failed_put_url if failed else request.put_url
    if not bucket or not key:
        raise DeliveryImpossible(
            "The delivery request names no bucket and key to deliver to."
        )
    upload = own_rights.uploader(kind)
    refusal: Expired | None = None
    if put_url is not None and content.size <= LARGEST_PUT[kind]:
        try:
            put_signed(put_url, request.put_headers, content)
        except Expired as error:
            if upload is None:
                raise
            refusal = error
            log.warning("The signed URL of %s was refused; using own rights", key)
        else:
            return
    if upload is None:
        library = own_rights.LIBRARIES[kind]
        if put_url is not None:
            raise ResultRefused(
                f"The result has {content.size:,} bytes; a signed URL takes at most "
                f"{LARGEST_PUT[kind]:,}. Install {library} on the worker for larger "
                "ones."
            )
        raise DeliveryImpossible(
            f"{kind}://{bucket}/{key} cannot be written: the delivery request has no "
            f"signed URL, and {library} is not installed. Add {library} to the "
            "requirements.txt of the task code."
        )
    try:
        upload(bucket, key, content, request.put_headers or {})
    except DeliveryUndeliverable as error:
        if refusal is None:
            raise
        raise type(error)(f"{refusal} Then: {error}") from error
