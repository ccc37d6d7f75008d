# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Deliver to an object store: by a signed URL, or with the worker's own credentials."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from runqy_delivery.errors import (
    DeliveryImpossible,
    DeliveryUndeliverable,
    ResultRefused,
)
from runqy_delivery.sinks.signed_url import Expired, put_signed
from runqy_delivery.sinks.uploads import LIBRARIES, uploader

if TYPE_CHECKING:
    from runqy_delivery.result import Content
    from runqy_delivery.wire import DeliveryRequest

log = logging.getLogger("runqy_delivery")

#: The sinks that are object stores, and the largest object that each accepts in one PUT
#: to a signed URL, in bytes.
MAX_PUT_BYTES = {
    "s3": 5 * 1024**3,
    "gs": 5 * 1024**4,
    "abfs": 5000 * 1024**2,
    "file": 0,
}


def put(request: DeliveryRequest, content: Content, *, failed: bool = False) -> None:
    """Store content in the bucket and under the key of a request; files are streamed.

    Args:
        request: The delivery request.
        content: What to store.
        failed: True stores it under ``failed_key`` instead of ``key``.

    Raises:
        ResultRefused: The content is too large for one PUT, and no client of the store
            is installed.
        DeliveryImpossible: The configuration must be changed first.
        DeliveryUndeliverable: The store could not be reached within the retry budget.
    """
    sink, bucket = request.sink, request.bucket
    key = request.failed_key if failed else request.key
    put_url = request.failed_put_url if failed else request.put_url
    if not bucket or not key:
        raise DeliveryImpossible(
            "The delivery request has no bucket and key, which an object store needs."
        )
    upload = uploader(sink)
    refusal: Expired | None = None
    if put_url is not None and content.size <= MAX_PUT_BYTES[sink]:
        try:
            put_signed(put_url, request.put_headers, content)
        except Expired as error:
            if upload is None:
                raise
            refusal = error
            log.warning(
                "The signed URL of %s was refused; using the worker's own credentials",
                key,
            )
        else:
            return
    if upload is None:
        raise _no_client(f"{sink}://{bucket}/{key}", sink, put_url, content)
    try:
        upload(bucket, key, content, request.put_headers or {})
    except DeliveryUndeliverable as error:
        if refusal is None:
            raise
        raise type(error)(f"{refusal} Then: {error}") from error


def put_beside(request: DeliveryRequest, suffix: str, content: Content) -> str | None:
    """Store content beside the result of a request, with the worker's own credentials.

    Args:
        request: The delivery request.
        suffix: What is appended to the key of the result.
        content: What to store.

    Returns:
        The URI of the object; None if it could not be stored.
    """
    sink, bucket, key = request.sink, request.bucket, request.key
    # If there is a signed URL, it is for the key of the result only, and the worker
    # need not have credentials: looking for some could take minutes.
    if sink not in MAX_PUT_BYTES or not bucket or not key or request.put_url:
        return None
    upload = uploader(sink)
    if upload is None:
        return None
    try:
        upload(bucket, key + suffix, content, request.put_headers or {})
    except DeliveryUndeliverable as error:
        log.warning("%s", error)
        return None
    return f"{sink}://{bucket}/{key}{suffix}"


def _no_client(
    uri: str, sink: str, put_url: str | None, content: Content
) -> DeliveryImpossible | ResultRefused:
    """Return the error for content that only a client could store."""
    library = LIBRARIES[sink]
    if put_url is not None:
        return ResultRefused(
            f"The result has {content.size:,} bytes; a signed URL accepts at most "
            f"{MAX_PUT_BYTES[sink]:,}. Add {library} to the requirements.txt of the "
            "task code for larger results."
        )
    return DeliveryImpossible(
        f"{uri} cannot be written: the delivery request has no signed URL, and "
        f"{library} is not installed. Add {library} to the requirements.txt of the "
        "task code."
    )
