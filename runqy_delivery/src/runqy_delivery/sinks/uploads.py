# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Upload to an object store or a shared folder with the worker's own credentials."""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable

from runqy_delivery.errors import DeliveryImpossible, DeliveryUndeliverable

if TYPE_CHECKING:
    from runqy_delivery.result import Content

#: The client library of each kind of object store.
LIBRARIES = {"s3": "boto3", "gs": "obstore", "abfs": "obstore"}

#: Error codes of S3 that a retry does not change.
PERMANENT_CODES = frozenset(
    {
        "AccessDenied",
        "AllAccessDisabled",
        "InvalidAccessKeyId",
        "MissingContentLength",
        "NoSuchBucket",
        "NotImplemented",
        "SignatureDoesNotMatch",
    }
)

#: Error codes of S3 by which a store says that it lacks the newer checksums of boto3.
CHECKSUM_CODES = ("MissingContentLength", "NotImplemented")

CHECKSUM_HINT = (
    ". The store may lack newer checksums: set AWS_REQUEST_CHECKSUM_CALCULATION to "
    "when_required in a vault of this queue."
)

#: Class names of errors that a retry does not change: botocore's, obstore's, Python's.
PERMANENT_ERRORS = frozenset(
    {
        "FileNotFoundError",
        "NoCredentialsError",
        "NotADirectoryError",
        "NotFoundError",
        "PartialCredentialsError",
        "PermissionDeniedError",
        "PermissionError",
        "UnauthenticatedError",
    }
)

#: Uploads to a bucket (or folder), under a key, content, with headers.
Upload = Callable[[str, str, "Content", Mapping[str, str]], None]

#: boto3's argument for each header that a bucket policy may require.
EXTRA_ARGS = {
    "x-amz-acl": "ACL",
    "x-amz-server-side-encryption": "ServerSideEncryption",
    "x-amz-server-side-encryption-aws-kms-key-id": "SSEKMSKeyId",
}

#: How much of a file is copied at once, in bytes.
CHUNK = 1024 * 1024


def uploader(kind: str) -> Upload | None:
    """Return the function that uploads to a kind of object store.

    Args:
        kind: ``s3``, ``gs``, ``abfs`` or ``file``.

    Returns:
        The function, or None if the client library is not installed.
    """
    if kind == "file":
        return _to_folder
    # Imported late and by name: this package has no dependencies.
    try:
        library = importlib.import_module(LIBRARIES[kind])
    except ImportError:
        return None
    if kind == "s3":
        return lambda bucket, key, content, headers: _by_boto3(
            library, bucket, key, content, headers
        )
    stores = importlib.import_module("obstore.store")
    store = stores.GCSStore if kind == "gs" else stores.AzureStore
    return lambda bucket, key, content, _headers: _by_obstore(
        library, store, f"{kind}://{bucket}", key, content
    )


def _by_boto3(
    boto3: Any, bucket: str, key: str, content: Content, headers: Mapping[str, str]
) -> None:
    extra = {EXTRA_ARGS[n]: v for n, v in headers.items() if n in EXTRA_ARGS}
    errors = importlib.import_module("botocore.exceptions")
    boto3_errors = importlib.import_module("boto3.exceptions")
    try:
        with content.open() as stream:
            boto3.client("s3").upload_fileobj(
                stream,
                bucket,
                key,
                ExtraArgs={"ContentType": content.content_type, **extra},
            )
    except (errors.BotoCoreError, errors.ClientError, boto3_errors.Boto3Error) as error:
        raise _not_written(f"s3://{bucket}/{key}", error) from error


def _by_obstore(obstore: Any, store: Any, url: str, key: str, content: Content) -> None:
    base_error = importlib.import_module("obstore.exceptions").BaseError
    try:
        client = store(url.partition("://")[2])
        with content.open() as stream:
            attributes = {"Content-Type": content.content_type}
            obstore.put(client, key, stream, attributes=attributes)
    except (base_error, OSError, ValueError) as error:
        raise _not_written(f"{url}/{key}", error) from error


def _to_folder(
    folder: str, key: str, content: Content, _headers: Mapping[str, str]
) -> None:
    """Write a file atomically: readers see the whole file or none."""
    target = Path(folder, key)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".", dir=target.parent)
        temporary = Path(name)
        try:
            with content.open() as stream, os.fdopen(handle, "wb") as out:
                shutil.copyfileobj(stream, out, CHUNK)
                out.flush()
                os.fsync(out.fileno())
            # mkstemp makes files that only their owner can read; Airflow must, too.
            temporary.chmod(0o644)
            temporary.replace(target)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
    except OSError as error:
        raise _not_written(f"file://{target}", error) from error


def _not_written(uri: str, error: BaseException) -> DeliveryUndeliverable:
    """Return the error for an upload that failed."""
    message = str(error).partition("\n\nDebug source")[0]  # obstore's details in Rust
    error_class = DeliveryImpossible if _is_permanent(error) else DeliveryUndeliverable
    hint = CHECKSUM_HINT if any(code in message for code in CHECKSUM_CODES) else ""
    return error_class(
        f"{uri} could not be written with the worker's own credentials: "
        f"{type(error).__name__}: {message}{hint}"
    )


def _is_permanent(error: BaseException | None) -> bool:
    """True for a missing permission, bucket or login: a retry would fail as well."""
    while error is not None:
        if type(error).__name__ in PERMANENT_ERRORS:
            return True
        response = getattr(error, "response", None)
        details = response.get("Error", {}) if isinstance(response, dict) else {}
        # boto3 wraps botocore's error, and has its code only in its message.
        if details.get("Code") in PERMANENT_CODES or any(
            f"({code})" in str(error) for code in PERMANENT_CODES
        ):
            return True
        error = error.__cause__ or error.__context__
    return False
