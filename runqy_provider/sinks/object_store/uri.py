# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Names of buckets, folders and keys in URIs: how they are quoted, and read back."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit

from runqy_provider.errors import BadDelivery, Misconfigured

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: Characters that would end the path of a URI, separate it from the next URI, or look
#: like a quoted character; and those that are invisible, or that XCom cannot store. All
#: others are not quoted, so that names remain readable.
_SPECIAL = re.compile(r"[\s%?#\x00-\x1f\x7f]")

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")

_AWS = ".amazonaws.com"


def quoted(name: str) -> str:
    """Quote the name of a bucket, a folder or a key for a URI."""
    return _SPECIAL.sub(lambda found: quote(found[0], safe=""), name)


def unquoted(text: str) -> str:
    """Unquote a name that is part of a URI.

    Raises:
        Misconfigured: The quoted characters are not UTF-8.
    """
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError as error:
        raise Misconfigured(
            f"{text!r} is not valid in a URI: the characters quoted with % are not "
            "UTF-8."
        ) from error


def check_name(name: str) -> None:
    """Check that all stores, signed URLs and logs can contain a prefix or folder.

    Raises:
        Misconfigured: It has a control character, a lone surrogate, or a part that
            leads to another folder.
    """
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise Misconfigured(
            f"{name!r} is not a valid name: it is not UTF-8."
        ) from error
    if _CONTROL.search(name) or {".", ".."}.intersection(name.split("/")):
        raise Misconfigured(
            f"{name!r} is not a valid name for results: it has a control character, or "
            "a part '.' or '..'."
        )


def object_uri(url: str, key: str) -> str:
    """Return the URI of an object: the ``url`` of its store, and the key."""
    return f"{url}/{quoted(key)}"


def key_at(url: str, uri: str) -> str | None:
    """Return the key of an object's URI; None if it is not in the store.

    Args:
        url: The ``url`` of the store.
        uri: The URI of the object.

    Raises:
        Misconfigured: The key is not valid.
    """
    rest = uri.removeprefix(f"{url}/")
    return None if rest == uri else unquoted(rest)


def key_of_url(url: str, roots: Mapping[str, str]) -> str | None:
    """Return the key of the object that a URL names in a bucket.

    Args:
        url: The URL, as task code reports it.
        roots: The ways to write URLs of the bucket: by scheme and host, what their
            paths begin with. ``{"gs://b": "", "https://storage.googleapis.com": "b/"}``

    Returns:
        The key; None if the URL is not that of an object in the bucket.

    Raises:
        BadDelivery: The URL cannot be parsed.
    """
    with url_errors():
        parts = urlsplit(url)
        host = (parts.hostname or "").lower()
    if parts.scheme not in ("http", "https"):
        host = parts.netloc
    start = roots.get(f"{parts.scheme}://{host}")
    path = unquote(parts.path.lstrip("/"))
    if start is None or not path.startswith(start):
        return None
    return path.removeprefix(start) or None


@contextmanager
def url_errors() -> Iterator[None]:
    """Turn the error of a ``result_url`` that cannot be parsed into BadDelivery."""
    try:
        yield
    except ValueError as error:
        raise BadDelivery(f"result_url is not a URL: {error}") from error


def key_in_bucket(url: str, bucket: str, endpoint: str | None) -> str | None:
    """Return the key of the object that a URL names; None if not in this bucket.

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
