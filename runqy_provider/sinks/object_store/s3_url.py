# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Which object a URL of S3 names. Nothing is ever fetched by URL."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

from runqy_provider.sinks.object_store.uri import url_errors

_AWS = ".amazonaws.com"


def key_in_bucket(url: str, bucket: str, endpoint: str | None) -> str | None:
    """Return the key of the object that a URL names; None: not in this bucket.

    Args:
        url: ``s3://bucket/key``, or an https URL of S3 in virtual-hosted or path style,
            presigned or not; or one of the endpoint.
        bucket: Name of the bucket.
        endpoint: The S3 endpoint in use; None for Amazon's.

    Raises:
        BadDelivery: The URL cannot be parsed.
    """
    with url_errors():
        parts = urlsplit(url)
        host, port = (parts.hostname or "").lower(), parts.port
    path = unquote(parts.path.lstrip("/"))
    if parts.scheme == "s3":
        return (path or None) if parts.netloc == bucket else None
    if parts.scheme not in ("http", "https"):
        return None
    if _is_bucket_host(host, bucket, endpoint, port):
        return path or None
    if _is_path_host(host, endpoint, port):
        first, _, key = path.partition("/")
        return (key or None) if first == bucket else None
    return None


def _is_bucket_host(
    host: str, bucket: str, endpoint: str | None, port: int | None
) -> bool:
    """Return whether a host names the bucket, as ``bucket.s3.amazonaws.com`` does."""
    rest = host.removeprefix(f"{bucket}.")
    return rest != host and _is_path_host(rest, endpoint, port)


def _is_path_host(host: str, endpoint: str | None, port: int | None) -> bool:
    """Return whether a host is the endpoint, or S3 itself in any region."""
    if endpoint is not None:
        parts = urlsplit(endpoint)
        if host == (parts.hostname or "").lower() and port == parts.port:
            return True
    name = host.removesuffix(_AWS).removesuffix(f"{_AWS}.cn")
    return name != host and (name == "s3" or name.startswith(("s3.", "s3-")))
