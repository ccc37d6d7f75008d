# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""PUT to a signed URL of an object store: the worker needs no credentials for it."""

from __future__ import annotations

import logging
import re
import urllib.parse
from datetime import datetime, timedelta, timezone
from typing import IO, TYPE_CHECKING

from runqy_delivery._http import Response, deliver_over_http, redact, retryable_error
from runqy_delivery.errors import (
    DeliveryImpossible,
    DeliveryUndeliverable,
    ResultRefused,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runqy_delivery.result import Content

log = logging.getLogger("runqy_delivery")

SUCCESS, REDIRECTS, NOT_IMPLEMENTED = range(200, 300), range(300, 400), 501
FORBIDDEN, PRECONDITION_FAILED, TOO_LARGE = 403, 412, 413

#: Error codes with status 400 by which S3 and Google say that a URL has expired.
_EXPIRED_CODE = re.compile(r"<Code>\s*Expired(Token|Request)\s*</Code>")

#: Error codes with status 400 or 409 after which S3 may accept the same request.
_RETRYABLE_CODE = re.compile(
    r"<Code>\s*(RequestTimeout|OperationAborted|ConditionalRequestConflict)\s*</Code>"
)

#: Appended for strptime, which ignores the time zone of a trailing Z.
UTC_OFFSET = "+0000"


class Expired(DeliveryImpossible):
    """The store refused a signed URL: it has expired, or its signer may not write."""


def put_signed(url: str, headers: Mapping[str, str] | None, content: Content) -> None:
    """PUT content to a signed URL; files are streamed.

    An existing object is kept if the URL was signed with ``If-None-Match: *``.

    Args:
        url: The signed URL; a secret.
        headers: Headers that the URL was signed with, besides type and length.
        content: What to store.

    Raises:
        ResultRefused: The store rejects the content as too large.
        Expired: The store refused the URL.
        DeliveryImpossible: The store refused the request for another reason.
        DeliveryUndeliverable: The store could not be reached within the retry budget.
    """

    def make_body() -> tuple[IO[bytes], Mapping[str, str]]:
        all_headers = {
            **(headers or {}),
            "Content-Type": content.content_type,
            "Content-Length": str(content.size),
        }
        return content.open(), all_headers

    def is_expired() -> bool:
        end = expiry_of(url)
        return end is not None and end <= datetime.now(timezone.utc)

    try:
        response = deliver_over_http(
            "PUT", url, make_body, is_expired=is_expired, error_in=_error_in
        )
    except DeliveryUndeliverable as error:
        if is_expired():
            raise Expired(f"{error} {_expiry_hint(url)}") from error
        raise
    _check(response, url, headers or {})


def expiry_of(url: str) -> datetime | None:
    """Return when a signed URL of S3, Google or Azure expires; None if unknown."""
    query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(url).query))
    try:
        for vendor in ("X-Amz", "X-Goog"):
            if f"{vendor}-Date" in query:
                text = query[f"{vendor}-Date"] + UTC_OFFSET
                signed_at = datetime.strptime(text, "%Y%m%dT%H%M%SZ%z")
                return signed_at + timedelta(seconds=int(query[f"{vendor}-Expires"]))
        if "Expires" in query:
            return datetime.fromtimestamp(int(query["Expires"]), timezone.utc)
        if "se" in query:
            return datetime.strptime(query["se"] + UTC_OFFSET, "%Y-%m-%dT%H:%M:%SZ%z")
    except (KeyError, ValueError, OverflowError):
        pass  # signed by a scheme that this function does not know
    return None


def _check(response: Response, url: str, headers: Mapping[str, str]) -> None:
    """Raise the error of a final response; return where the object is stored."""
    if response.status in SUCCESS:
        return
    if response.status == PRECONDITION_FAILED:
        # Stored by an earlier try whose response was lost, or by an earlier run.
        log.warning("%s already holds an object, which is kept.", redact(url))
        return
    message = (
        f"PUT {redact(url)} was refused with {response.status}: {response.text[:500]}"
    )
    if response.status == FORBIDDEN or _EXPIRED_CODE.search(response.text):
        raise Expired(f"{message}. {_expiry_hint(url)}")
    if response.status == TOO_LARGE:
        raise ResultRefused(message)
    if "If-None-Match" in headers and (
        response.status == NOT_IMPLEMENTED or response.status in REDIRECTS
    ):
        message = (
            f"{message}. The store may not support If-None-Match: add once=false to "
            "the sink of the task in Airflow, as in s3://bucket/prefix?once=false"
        )
    raise DeliveryImpossible(message)


def _error_in(response: Response) -> str | None:
    """Return why a PUT may succeed later; None for a final response."""
    if _RETRYABLE_CODE.search(response.text):
        return f"{response.status} {response.text[:200]}"
    return retryable_error(response)


def _expiry_hint(url: str) -> str:
    """Return why a signed URL may have been refused, and what to do."""
    end = expiry_of(url)
    if end is None:
        return (
            "The signed URL has expired, or its signer may not write there: check the "
            "connection in Airflow, and that the job did not wait in its queue for "
            "longer than the task's delivery_timeout."
        )
    at = end.strftime("%Y-%m-%d %H:%M:%S UTC")
    if end <= datetime.now(timezone.utc):
        return (
            f"The signed URL expired at {at}: the job waited in its queue, or ran, for "
            "longer than that. Increase the task's delivery_timeout (signed URLs are "
            "valid for seven days at most), or give the worker its own credentials."
        )
    return (
        f"The signed URL is valid until {at}, so its signer may not write there, or "
        "used credentials that have expired: check the connection in Airflow."
    )
