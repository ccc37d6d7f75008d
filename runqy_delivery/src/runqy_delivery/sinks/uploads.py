# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Write into an object store with the worker's own rights, where it has a client."""

from __future__ import annotations

import contextlib
import importlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable

from runqy_delivery.errors import DeliveryImpossible, DeliveryUndeliverable

if TYPE_CHECKING:
    from runqy_delivery.result import Content

#: What to install for each kind of store.
LIBRARIES = {"s3": "boto3", "gs": "obstore", "abfs": "obstore"}

#: Codes of S3 that come again, whoever asks again.
LASTING_CODES = frozenset(
    {
        "AccessDenied",
        "AllAccessDisabled",
        "InvalidAccessKeyId",
        "NoSuchBucket",
        "SignatureDoesNotMatch",
    }
)

#: Class names of errors that do so too: botocore's, obstore's, and Python's for files.
LASTING_ERRORS = frozenset(
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

Upload = Callable[[str, str, "Content", Mapping[str, str]], None]

#: boto3's names for headers that a bucket's policy may demand.
EXTRA_ARGS = {
    "x-amz-acl": "ACL",
    "x-amz-server-side-encryption": "ServerSideEncryption",
    "x-amz-server-side-encryption-aws-kms-key-id": "SSEKMSKeyId",
}


def uploader(kind: str) -> Upload | None:
    """Return what uploads to a kind of store; None where no client is installed."""
    if kind == "file":
        return _into_folder
    # By name, and only when a result is at hand: this package needs nothing else.
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
    demanded = {EXTRA_ARGS[n]: v for n, v in headers.items() if n in EXTRA_ARGS}
    errors = importlib.import_module("botocore.exceptions")
    boto3_errors = importlib.import_module("boto3.exceptions")
    try:
        with content.open() as stream:
            boto3.client("s3").upload_fileobj(
                stream,
                bucket,
                key,
                ExtraArgs={"ContentType": content.content_type, **demanded},
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


def _into_folder(
    folder: str,
    key: str,
    content: Content,
    _headers: Mapping[str, str],
) -> None:
    """Write a file that is seen whole or not at all."""
    target = Path(folder, key)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".", dir=target.parent)
        try:
            with content.open() as stream, os.fdopen(handle, "wb") as out:
                while True:
                    block = stream.read(1024 * 1024)
                    if not block:
                        break
                    out.write(block)
                out.flush()
                os.fsync(out.fileno())
            # mkstemp's files are their owner's alone; this one is for Airflow too.
            Path(name).chmod(0o644)
            Path(name).replace(target)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(name).unlink()
            raise
    except OSError as error:
        raise _not_written(f"file://{target}", error) from error


def _not_written(place: str, error: BaseException) -> DeliveryUndeliverable:
    words = str(error).partition("\n\nDebug source")[0]
    kind = DeliveryImpossible if _lasts(error) else DeliveryUndeliverable
    return kind(
        f"{place} could not be written with this worker's own rights: "
        f"{type(error).__name__}: {words}"
    )


def _lasts(error: BaseException | None) -> bool:
    """True for a missing right, bucket or login: it would be missing again."""
    while error is not None:
        if type(error).__name__ in LASTING_ERRORS:
            return True
        answer = getattr(error, "response", None)
        code = answer.get("Error", {}).get("Code") if isinstance(answer, dict) else None
        # boto3 wraps botocore's error, and repeats its code only in its text.
        if code in LASTING_CODES or any(f"({c})" in str(error) for c in LASTING_CODES):
            return True
        error = error.__cause__ or error.__context__
    return False
