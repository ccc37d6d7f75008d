# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""PUT to a URL that a store's owner has signed: the worker needs no credentials."""

from __future__ import annotations

import logging
import re
import urllib.parse
from datetime import datetime, timedelta, timezone
from typing import IO, TYPE_CHECKING

from runqy_delivery._http import Answer, deliver_over_http, show, worth_trying_again
from runqy_delivery.errors import (
    DeliveryImpossible,
    DeliveryUndeliverable,
    ResultRefused,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runqy_delivery.result import Content

log = logging.getLogger("runqy_delivery")

SUCCESS = range(200, 300)
FORBIDDEN, THERE_ALREADY, TOO_LARGE = 403, 412, 413

#: How S3 and Google say in their XML, with a 400, that a URL's time is over.
_TOO_LATE = re.compile(r"<Code>\s*Expired(Token|Request)\s*</Code>")

#: How S3 says, with a 400 or 409, that the same request may well succeed.
_PASSING = re.compile(
    r"<Code>\s*(RequestTimeout|OperationAborted|ConditionalRequestConflict)\s*</Code>"
)

#: What says to strptime that a time is in UTC; its Z does not.
UTC = "+0000"


class Expired(DeliveryImpossible):
    """The store refused the URL."""


def put_signed(url: str, headers: Mapping[str, str] | None, content: Content) -> None:
    """PUT content to a signed URL, streaming files.

    Args:
        url: The signed URL.
        headers: Headers that the store asks for, besides type and length.
        content: What to store.

    Raises:
        ResultRefused: The store says that it is too large.
        Expired: The store refused the URL.
        DeliveryImpossible: The store refused it for good.
        DeliveryUndeliverable: It could not be stored.
    """

    def make_body() -> tuple[IO[bytes], Mapping[str, str]]:
        given = {
            **(headers or {}),
            "Content-Type": content.content_type,
            "Content-Length": str(content.size),
        }
        return content.open(), given

    def is_over() -> bool:
        end = expiry_of(url)
        return end is not None and end <= datetime.now(timezone.utc)

    try:
        answer = deliver_over_http(
            "PUT", url, make_body, is_hopeless=is_over, trouble_in=_trouble_in
        )
    except DeliveryUndeliverable as error:
        if is_over():
            raise Expired(f"{error} {_why(url)}") from error
        raise
    if answer.status in SUCCESS:
        return
    if answer.status == THERE_ALREADY:
        # From an earlier try whose answer was lost, or an earlier run of the job.
        log.warning("%s holds an object already: it stays.", show(url))
        return
    words = f"PUT {show(url)} was refused with {answer.status}: {answer.text[:500]}"
    if answer.status == FORBIDDEN or _TOO_LATE.search(answer.text):
        raise Expired(f"{words}. {_why(url)}")
    if answer.status == TOO_LARGE:
        raise ResultRefused(words)
    raise DeliveryImpossible(words)


def _trouble_in(answer: Answer) -> str | None:
    if _PASSING.search(answer.text):
        return f"{answer.status} {answer.text[:200]}"
    return worth_trying_again(answer)


def _why(url: str) -> str:
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
            "longer than that. Raise the task's delivery_timeout (signed URLs live for "
            "seven days at most), or give the worker rights of its own."
        )
    return (
        f"The signed URL is valid until {at}, so its signer may not write there, or "
        "used credentials that have expired: check the connection in Airflow."
    )


def expiry_of(url: str) -> datetime | None:
    """Return until when a signed URL of S3, Google or Azure works, if it says so."""
    query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(url).query))
    try:
        for vendor in ("X-Amz", "X-Goog"):
            if f"{vendor}-Date" in query:
                text = query[f"{vendor}-Date"] + UTC
                signed = datetime.strptime(text, "%Y%m%dT%H%M%SZ%z")
                lifetime = timedelta(seconds=int(query[f"{vendor}-Expires"]))
                return signed + lifetime
        if "Expires" in query:
            return datetime.fromtimestamp(int(query["Expires"]), timezone.utc)
        if "se" in query:
            return datetime.strptime(query["se"] + UTC, "%Y-%m-%dT%H:%M:%SZ%z")
    except (KeyError, ValueError, OverflowError):
        pass  # signed in a way that we do not know: there is nothing to say
    return None
