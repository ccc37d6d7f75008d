# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Signed PUT URLs in delivery requests, and warnings if one expires too early."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runqy_provider.sinks.object_store.base import ObjectStore, SignedPut

log = logging.getLogger(__name__)

#: The longest lifetime of a signed URL that stores allow, in seconds.
MAX_LIFETIME = 7 * 24 * 3600


def lifetime(seconds: float) -> int:
    """Return how many seconds a signed URL must work, within what stores allow."""
    return int(min(max(seconds, 60), MAX_LIFETIME))


def sign_put(store: ObjectStore, key: str, expires: float) -> SignedPut | None:
    """Return a URL to PUT an object to; None if the store cannot sign URLs.

    Args:
        store: The bucket.
        key: The key of the object.
        expires: Until when the URL should work, in seconds since 1970. A warning is
            logged if it expires earlier.

    Raises:
        SinkError: The URL cannot be signed.
    """
    seconds = expires - time.time()
    if seconds > MAX_LIFETIME:
        log.warning(
            "The signed URL for %s/%s works for only 7 days, the longest that stores "
            "allow, and the job may take %.1f. If it takes longer, the worker needs "
            "credentials of its own.",
            store.url,
            key,
            seconds / 86400,
        )
    put = store.sign_put(key, lifetime(seconds))
    if put is not None and put.ends_at is not None and put.ends_at < expires:
        log.warning(
            "The signed URL for %s/%s works only until %s, when the credentials that "
            "signed it expire; the task waits for the result until %s. If the job "
            "takes longer, the worker needs credentials of its own.",
            store.url,
            key,
            _utc(put.ends_at),
            _utc(expires),
        )
    return put


def _utc(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))
