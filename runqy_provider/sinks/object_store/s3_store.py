# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""S3, or whatever speaks its API, by way of Airflow's AWS connections."""

from __future__ import annotations

import gzip
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    PartialCredentialsError,
)

from runqy_provider.connections import DEFAULT_AWS_CONN_ID
from runqy_provider.errors import Misconfigured, NoAccess, NotThere, SinkUnavailable
from runqy_provider.sinks.object_store.base import Head, Listing, SignedPut
from runqy_provider.sinks.object_store.clients import shared_client
from runqy_provider.sinks.object_store.s3_put import S3Put
from runqy_provider.sinks.object_store.s3_url import key_in_bucket

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: What S3 says of an object that was put without a word about its kind.
UNTOLD = "binary/octet-stream"

#: Seconds, and tries: a task waits for a look, and must not do so for minutes. And
#: boto3 still signs URLs for us-east-1 in the old way, which no new bucket takes.
DEFAULTS: dict[str, Any] = {
    "connect_timeout": 5,
    "read_timeout": 15,
    "retries": {"max_attempts": 2},
    "signature_version": "s3v4",
}

_DENIED = frozenset(
    {"401", "403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch"}
    | {"ExpiredToken", "InvalidToken", "AllAccessDisabled", "Forbidden"}
)
_MISSING = frozenset({"404", "NoSuchBucket", "NoSuchKey", "NotFound"})


@dataclass(frozen=True)
class S3Store:
    """A bucket in S3.

    Args:
        bucket: Its name.
        aws_conn_id: The AWS connection.
        put: How objects are put by signed URLs.
        signed_endpoint: The endpoint in signed URLs; the connection's extra
            ``signed_endpoint_url``, or its endpoint, where not given.
    """

    bucket: str
    aws_conn_id: str
    put: S3Put = field(default_factory=S3Put)
    signed_endpoint: str | None = None

    @property
    def url(self) -> str:
        """Where it is."""
        return f"s3://{self.bucket}"

    @property
    def access_hint(self) -> str:
        """What its rights come from."""
        return f"AWS connection {self.aws_conn_id!r}"

    def check(self, folder: str) -> None:
        """Ask whether the bucket is there, and list where results go, as waits do."""
        with self._errors("list", folder):
            self._client().list_objects_v2(Bucket=self.bucket, Prefix=folder, MaxKeys=1)

    def list_folder(self, folder: str) -> Listing:
        """List the objects right in a folder."""
        found: dict[str, float] = {}
        pages = 0
        with self._errors("list", folder):
            paginator = self._client().get_paginator("list_objects_v2")
            for page in paginator.paginate(
                Bucket=self.bucket, Prefix=folder, Delimiter="/"
            ):
                pages += 1
                for item in page.get("Contents", ()):
                    found[item["Key"]] = item["LastModified"].timestamp()
        return Listing(found, pages)

    def find(self, key: str, suffix: str) -> Listing:  # noqa: ARG002 - both begin with the key
        """Look for a key, and for the same with a suffix."""
        return self.list_folder(key)

    def head(self, key: str) -> Head:
        """Return what is known of an object."""
        with self._errors("read", key):
            head = self._client().head_object(Bucket=self.bucket, Key=key)
        kind = head.get("ContentType")
        is_compressed = head.get("ContentEncoding", "").lower() == "gzip"
        return Head(
            head["ContentLength"],
            head["LastModified"].timestamp(),
            None if kind == UNTOLD else kind,
            is_compressed=is_compressed,
        )

    def stream(self, key: str) -> BinaryIO:
        """Open an object for reading; one that is stored compressed, decompressed."""
        with self._errors("read", key):
            found: Any = self._client().get_object(Bucket=self.bucket, Key=key)
        if found.get("ContentEncoding", "").lower() == "gzip":
            return cast("BinaryIO", gzip.GzipFile(fileobj=found["Body"]))
        return cast("BinaryIO", found["Body"])

    def sign_put(self, key: str, seconds: int) -> SignedPut:
        """Return a URL to PUT an object to."""
        url = self._sign("put_object", key, seconds, self.put.parameters)
        ends_at = _end_of_credentials(self._client())
        return SignedPut(url, self.put.headers, ends_at)

    def sign_get(self, key: str, seconds: int) -> str:
        """Return a URL to GET an object from."""
        return self._sign("get_object", key, seconds)

    def key_of(self, url: str) -> str | None:
        """Return the key that a URL means in this bucket."""
        endpoints = {self._client().meta.endpoint_url, self._endpoint}
        keys = [key_in_bucket(url, self.bucket, endpoint) for endpoint in endpoints]
        return next((key for key in keys if key is not None), None)

    @property
    def _endpoint(self) -> str | None:
        return self.signed_endpoint or shared_s3(self.aws_conn_id).signed_endpoint

    def _sign(
        self,
        method: str,
        key: str,
        seconds: int,
        more: Mapping[str, str] | None = None,
    ) -> str:
        parameters = {"Bucket": self.bucket, "Key": key, **(more or {})}
        with self._errors("sign a URL for", key):
            url = self._signer().generate_presigned_url(
                method, Params=parameters, ExpiresIn=seconds
            )
        return str(url)

    def _client(self) -> Any:
        return shared_s3(self.aws_conn_id).boto3

    def _signer(self) -> Any:
        """Return a client for the bucket's own region, and the workers' endpoint.

        A signature names the region, and a store refuses one for another.
        """
        client = self._client()
        region = _region_of(self.aws_conn_id, self.bucket, client)
        endpoint = self._endpoint
        if endpoint is None and region in (None, client.meta.region_name):
            return client
        return shared_s3(self.aws_conn_id, region, endpoint).boto3

    @contextmanager
    def _errors(self, what: str, key: str = "") -> Iterator[None]:
        place = f"{self.url}/{key}" if key else self.url
        with s3_errors(place, self.access_hint, what):
            yield


def _end_of_credentials(client: Any) -> float | None:
    # Of a role: botocore renews them, but a URL keeps those that signed it. It has no
    # public name for either.
    credentials = client._request_signer._credentials  # noqa: SLF001
    end = getattr(credentials, "_expiry_time", None)
    return None if end is None else float(end.timestamp())


#: The regions of buckets, by connection and name: a bucket never moves.
_regions: dict[tuple[str, str], str] = {}


def _region_of(aws_conn_id: str, bucket: str, client: Any) -> str | None:
    """Return a bucket's own region; None where the store does not tell."""
    known = _regions.get((aws_conn_id, bucket))
    if known is not None:
        return known
    try:
        answer = client.head_bucket(Bucket=bucket)
    except ClientError as error:
        answer = error.response  # one that refuses tells the region, too
    except (BotoCoreError, OSError):
        return None  # the signed URL may do, and the check has been made before
    headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    region = headers.get("x-amz-bucket-region")
    if region:
        _regions[aws_conn_id, bucket] = region
    return region or None


def s3_client(aws_conn_id: str) -> Any:
    """Return the process's boto3 client for an AWS connection; see shared_client."""
    return shared_s3(aws_conn_id).boto3


def shared_s3(
    aws_conn_id: str, region: str | None = None, endpoint: str | None = None
) -> _Client:
    """Return the process's client for an AWS connection, and what goes with it.

    Args:
        aws_conn_id: The connection.
        region: A region other than the connection's.
        endpoint: An endpoint other than the connection's.
    """

    def make(before: _Client | None) -> _Client:
        # Imported late: the hook is heavy, and DAG files import this package.
        from airflow.providers.amazon.aws.hooks.s3 import S3Hook  # noqa: PLC0415
        from botocore.config import Config  # noqa: PLC0415

        hook = S3Hook(aws_conn_id=aws_conn_id, region_name=region)
        # Where there is no such connection the hook takes what the machine has. That
        # may be meant, but not where there was one.
        has_connection = bool(hook.conn_config)
        if before is not None and before.has_connection and not has_connection:
            raise Misconfigured(f"AWS connection {aws_conn_id!r} is not there any more")
        if not has_connection and aws_conn_id != DEFAULT_AWS_CONN_ID:
            raise Misconfigured(
                f"AWS connection {aws_conn_id!r} does not exist. Make it, or name "
                f"none: then {DEFAULT_AWS_CONN_ID!r} is used, or what the machine has."
            )
        # What the connection says of its own goes before ours.
        config = Config(**DEFAULTS).merge(hook.config)
        signed = hook.conn_config.extra_config.get("signed_endpoint_url") or None
        if endpoint is None:
            client = hook.get_client_type(config=config)
        else:
            session = hook.get_session(region_name=region)
            client = session.client(
                "s3", endpoint_url=endpoint, config=config, verify=hook.verify
            )
        return _Client(client, has_connection, signed)

    place = f"AWS connection {aws_conn_id!r}"
    if region is not None or endpoint is not None:
        place += f" (region {region}, endpoint {endpoint})"
    return shared_client(place, make)


@dataclass(frozen=True)
class _Client:
    boto3: Any
    has_connection: bool
    signed_endpoint: str | None = None


@contextmanager
def s3_errors(place: str, hint: str, what: str) -> Iterator[None]:
    """Turn botocore's errors into ours.

    Args:
        place: ``s3://bucket/key``, for the message.
        hint: What the rights come from, for the message.
        what: What was being done: ``"read"``, ``"list"``.
    """
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
