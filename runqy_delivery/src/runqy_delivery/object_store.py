# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Deliver into S3: a presigned PUT, or boto3 where it is installed."""

from __future__ import annotations

import importlib
import logging
from typing import IO, TYPE_CHECKING, Any

from runqy_delivery.errors import DeliveryUndeliverable, ResultRefused
from runqy_delivery.http import deliver_over_http, show

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runqy_delivery.result import Content
    from runqy_delivery.wire import DeliveryRequest

log = logging.getLogger("runqy_delivery")

#: The sinks that are object stores.
KINDS = frozenset({"s3"})

SUCCESS = range(200, 300)
FORBIDDEN, TOO_LARGE = 403, 413

#: The largest object that S3 takes in one PUT, in bytes.
LARGEST_PUT = 5 * 1024**3


def put(request: DeliveryRequest, content: Content, *, failed: bool = False) -> None:
    """Store content where a request says, streaming files.

    Args:
        request: The delivery request.
        content: What to store.
        failed: Store it under the key for a failure, not under the result's.

    Raises:
        ResultRefused: The result is larger than one PUT, and boto3 is not installed.
        DeliveryUndeliverable: It could not be stored.
    """
    key = request.failed_key if failed else request.key
    put_url = request.failed_put_url if failed else request.put_url
    if not request.bucket or not key:
        raise DeliveryUndeliverable(
            "The delivery request names no bucket and key to deliver to."
        )
    _put(request.bucket, key, put_url, content)


def _put(bucket: str, key: str, put_url: str | None, content: Content) -> None:
    boto3 = _boto3()
    if put_url is not None and content.size <= LARGEST_PUT:
        try:
            _put_presigned(put_url, content)
        except _Expired:
            if boto3 is None:
                raise
            log.warning("The presigned URL of %s was refused; using boto3", key)
        else:
            return
    if boto3 is None:
        if put_url is not None:
            raise ResultRefused(
                f"The result has {content.size:,} bytes; a presigned URL takes at "
                f"most {LARGEST_PUT:,}. Install boto3 on the worker for larger ones."
            )
        raise DeliveryUndeliverable(
            f"s3://{bucket}/{key} cannot be written: the delivery request has no "
            "presigned URL, and boto3 is not installed. Add boto3 to the "
            "requirements.txt of the task code."
        )
    try:
        with content.open() as stream:
            boto3.client("s3").upload_fileobj(
                stream, bucket, key, ExtraArgs={"ContentType": content.content_type}
            )
    except _boto_errors() as error:
        raise DeliveryUndeliverable(
            f"s3://{bucket}/{key} could not be written with this worker's own rights: "
            f"{type(error).__name__}: {error}"
        ) from error


class _Expired(DeliveryUndeliverable):
    """S3 refused the presigned URL."""


def _put_presigned(put_url: str, content: Content) -> None:
    def make_body() -> tuple[IO[bytes], Mapping[str, str]]:
        headers = {
            "Content-Type": content.content_type,
            "Content-Length": str(content.size),
        }
        return content.open(), headers

    answer = deliver_over_http("PUT", put_url, make_body)
    if answer.status in SUCCESS:
        return
    words = f"PUT {show(put_url)} was refused with {answer.status}: {answer.text[:500]}"
    if answer.status == FORBIDDEN:
        raise _Expired(
            f"{words}. The presigned URL has expired, or its signer may not write "
            "there: check the AWS connection in Airflow, and that the job did not "
            "wait in its queue for longer than the task's delivery_timeout."
        )
    if answer.status == TOO_LARGE:
        raise ResultRefused(words)
    raise DeliveryUndeliverable(words)


def _boto3() -> Any:
    # By name, and only when a result is at hand: this package needs nothing else.
    try:
        return importlib.import_module("boto3")
    except ImportError:
        return None


def _boto_errors() -> tuple[type[BaseException], ...]:
    exceptions = importlib.import_module("botocore.exceptions")
    boto3_exceptions = importlib.import_module("boto3.exceptions")
    return (
        exceptions.BotoCoreError,
        exceptions.ClientError,
        boto3_exceptions.Boto3Error,
    )
