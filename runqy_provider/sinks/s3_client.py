# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""S3 clients, one per AWS connection and process, and our errors for botocore's."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    PartialCredentialsError,
)

from runqy_provider.errors import NoAccess, NotThere, SinkUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Seconds after which a client is made anew, so that a changed connection is noticed.
CLIENT_TTL = 900.0

_DENIED = frozenset(
    {"401", "403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch"}
    | {"ExpiredToken", "InvalidToken", "AllAccessDisabled", "Forbidden"}
)
_MISSING = frozenset({"404", "NoSuchBucket", "NoSuchKey", "NotFound"})

_clients: dict[str, tuple[float, Any]] = {}
_lock = threading.Lock()


def s3_client(aws_conn_id: str) -> Any:
    """Return the process's boto3 client for an AWS connection.

    Blocks while Airflow is asked for the connection: from async code, call it in a
    thread. boto3 clients may be used by several threads at once.
    """
    with _lock:
        made, client = _clients.get(aws_conn_id, (0.0, None))
        if client is None or time.monotonic() - made > CLIENT_TTL:
            # Imported late: the hook is heavy, and DAG files import this package.
            from airflow.providers.amazon.aws.hooks.s3 import S3Hook  # noqa: PLC0415

            client = S3Hook(aws_conn_id=aws_conn_id).get_conn()
            _clients[aws_conn_id] = (time.monotonic(), client)
        return client


@contextmanager
def s3_errors(place: str, aws_conn_id: str, what: str) -> Iterator[None]:
    """Turn botocore's errors into ours.

    Args:
        place: ``s3://bucket/key``, for the message.
        aws_conn_id: The AWS connection, for the message.
        what: What was being done: ``"read"``, ``"list"``.
    """
    hint = f"AWS connection {aws_conn_id!r}"
    try:
        yield
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        words = error.response.get("Error", {}).get("Message") or code
        if code in _DENIED:
            raise NoAccess(
                f"Could not {what} {place}: access denied ({words}). Check the rights "
                f"of {hint}: ListBucket, GetObject and PutObject on that bucket."
            ) from error
        if code in _MISSING:
            raise NotThere(
                f"Could not {what} {place}: it does not exist ({words}). Check the "
                f"sink's bucket, and region and endpoint of {hint}."
            ) from error
        raise SinkUnavailable(f"Could not {what} {place}: {code}: {words}") from error
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise NoAccess(
            f"Could not {what} {place}: {error}. Put credentials into {hint}, or into "
            "the environment of scheduler, workers and triggerer."
        ) from error
    except (BotoCoreError, OSError) as error:
        raise SinkUnavailable(f"Could not {what} {place}: {error}") from error
