# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The sink ``s3://bucket/prefix``: S3, or a store with its API."""

from __future__ import annotations

import base64
import gzip
import math
import zlib
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar, cast

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    PartialCredentialsError,
)

from runqy_provider.airflow_compat import supervisor_lock
from runqy_provider.connections import DEFAULT_AWS_CONN_ID
from runqy_provider.errors import Misconfigured, NoAccess, NotThere, SinkUnavailable
from runqy_provider.sinks.object_store.base import (
    Head,
    Listing,
    S3Put,
    SignedPut,
    shared_client,
)
from runqy_provider.sinks.object_store.object_sink import ObjectSink
from runqy_provider.sinks.object_store.uri import key_in_bucket

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from runqy_provider.settings import Settings

#: The media type that S3 reports of an object that was put without one.
DEFAULT_CONTENT_TYPE = "binary/octet-stream"

#: Options of clients. Short timeouts (in seconds) and few attempts: tasks wait for each
#: poll. The signature version: for us-east-1, boto3's default is still the old one,
#: which new buckets refuse.
DEFAULTS: dict[str, Any] = {
    "connect_timeout": 5,
    "read_timeout": 15,
    "retries": {"max_attempts": 2},
    "signature_version": "s3v4",
}

#: What to do if a store lacks the newer checksums, for messages.
CHECKSUM_HINT = (
    'add "config_kwargs": {"request_checksum_calculation": "when_required"} to the '
    "extra of the AWS connection."
)

#: Codes by which a store says that it lacks them.
_LACKS_CHECKSUMS = frozenset({"MissingContentLength", "NotImplemented"})

_NOT_IMPLEMENTED, _REDIRECTS = 501, range(300, 400)

#: An MD5 sum that fits no content.
_WRONG_MD5 = "AAAAAAAAAAAAAAAAAAAAAA=="

#: How much of a stream is read at once, in bytes.
_PIECE = 1024 * 1024

#: Endpoints and buckets that have accepted ``If-None-Match``.
_takes_once: set[tuple[str, str]] = set()

_DENIED = frozenset(
    {"401", "403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch"}
    | {"ExpiredToken", "InvalidToken", "AllAccessDisabled", "Forbidden"}
)
_MISSING = frozenset({"404", "NoSuchBucket", "NoSuchKey", "NotFound"})

#: The regions of buckets, by connection and bucket: a bucket never changes its region.
_regions: dict[tuple[str, str], str] = {}


@dataclass(frozen=True)
class S3Sink(ObjectSink):
    """Results in S3.

    Args:
        bucket: Name of the bucket.
        prefix: What keys begin with; a job's key is ``prefix/delivery_id``.
        presign: Give workers a presigned PUT URL, so that they need no credentials.
        aws_conn_id: The AWS connection; by default the runqy connection's.
        once: Let the signed URL store an object only if none exists: a second PUT is
            refused. False for stores that do not support ``If-None-Match``.
        sse: Server-side encryption, if the bucket requires it: ``AES256`` or
            ``aws:kms``.
        kms_key_id: The KMS key for ``sse``.
        acl: A canned ACL, such as ``bucket-owner-full-control``.
        signed_endpoint: The endpoint in signed URLs, if workers reach the store at
            another address than Airflow does.
    """

    scheme: ClassVar[str] = "s3"
    bucket_kind: ClassVar[str] = "an S3 bucket"
    bucket_names: ClassVar[str] = r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"
    conn_option: ClassVar[str | None] = "aws_conn_id"

    aws_conn_id: str | None = None
    once: bool = True
    sse: str | None = None
    kms_key_id: str | None = None
    acl: str | None = None
    signed_endpoint: str | None = None

    def store(self, settings: Settings) -> S3Store:
        return S3Store(
            self.bucket,
            self.aws_conn_id or settings.connection.aws_conn_id,
            S3Put(self.once and self.presign, self.sse, self.kms_key_id, self.acl),
            self.signed_endpoint,
        )


@dataclass(frozen=True)
class S3Store:
    """A bucket in S3.

    Args:
        bucket: Name of the bucket.
        aws_conn_id: The AWS connection.
        put: Options of a PUT by a signed URL.
        signed_endpoint: The endpoint in signed URLs; by default the connection's extra
            ``signed_endpoint_url``, else its endpoint.
    """

    bucket: str
    aws_conn_id: str
    put: S3Put = field(default_factory=S3Put)
    signed_endpoint: str | None = None

    @property
    def url(self) -> str:
        return f"s3://{self.bucket}"

    @property
    def access_hint(self) -> str:
        return f"AWS connection {self.aws_conn_id!r}"

    def check(self, folder: str) -> None:
        """Check that the bucket can be listed, and accepts what workers will send."""
        client = self._client()
        with self._errors("list", folder):
            client.list_objects_v2(Bucket=self.bucket, Prefix=folder, MaxKeys=1)
        if not self.put.once:
            return
        bucket = (client.meta.endpoint_url, self.bucket)
        if "amazonaws.com" not in bucket[0] and bucket not in _takes_once:
            with self._errors("write", folder):
                _check_once(client, self.bucket, f"{folder}.runqy-check", self.url)
            _takes_once.add(bucket)

    def list_folder(self, folder: str) -> Listing:
        return cast("Listing", self._list(folder, math.inf, Delimiter="/"))

    def list_below(self, folder: str, most_pages: int) -> Listing | None:
        return self._list(folder, most_pages)

    def _list(self, prefix: str, most_pages: float, **options: str) -> Listing | None:
        """Return all objects; None if there are more pages than were asked for."""
        keys: dict[str, float] = {}
        pages = 0
        with self._errors("list", prefix):
            paginator = self._client().get_paginator("list_objects_v2")
            for page in paginator.paginate(
                Bucket=self.bucket, Prefix=prefix, **options
            ):
                pages += 1
                if pages > most_pages:
                    return None
                for item in page.get("Contents", ()):
                    keys[item["Key"]] = item["LastModified"].timestamp()
        return Listing(keys, pages)

    def find(self, key: str, suffix: str) -> Listing:  # noqa: ARG002 - both begin with the key
        return self.list_folder(key)

    def head(self, key: str) -> Head:
        with self._errors("read", key):
            head = self._client().head_object(Bucket=self.bucket, Key=key)
        content_type = head.get("ContentType")
        is_compressed = head.get("ContentEncoding", "").lower() == "gzip"
        return Head(
            head["ContentLength"],
            head["LastModified"].timestamp(),
            None if content_type == DEFAULT_CONTENT_TYPE else content_type,
            is_compressed=is_compressed,
        )

    def stream(self, key: str) -> BinaryIO:
        """Open an object for reading; one that is stored compressed is decompressed."""
        with self._errors("read", key):
            response: Any = self._client().get_object(Bucket=self.bucket, Key=key)
        if response.get("ContentEncoding", "").lower() == "gzip":
            return cast("BinaryIO", gzip.GzipFile(fileobj=response["Body"]))
        return cast("BinaryIO", response["Body"])

    def write(self, key: str, content: BinaryIO, content_type: str) -> None:
        """Store an object.

        With our own checksum: for its own ones, boto3 sends the body in chunks, which
        some stores refuse with ``MissingContentLength``.
        """
        options = replace(self.put, once=False).parameters
        options["ChecksumCRC32"] = _crc32(content)
        with self._errors("write", key):
            self._client().put_object(
                Bucket=self.bucket,
                Key=key,
                Body=content,
                ContentType=content_type,
                **options,
            )

    def sign_put(self, key: str, seconds: int) -> SignedPut:
        url = self._sign("put_object", key, seconds, self.put.parameters)
        ends_at = _end_of_credentials(self._client())
        return SignedPut(url, self.put.headers, ends_at)

    def sign_get(self, key: str, seconds: int) -> str:
        return self._sign("get_object", key, seconds)

    def key_of(self, url: str) -> str | None:
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
        """Return a client for the bucket's own region and the workers' endpoint.

        A signature names the region; a store refuses one that names another region.
        """
        client = self._client()
        region = _region_of(self.aws_conn_id, self.bucket, client)
        endpoint = self._endpoint
        if endpoint is None and region in (None, client.meta.region_name):
            return client
        return shared_s3(self.aws_conn_id, region, endpoint).boto3

    @contextmanager
    def _errors(self, operation: str, key: str = "") -> Iterator[None]:
        """Turn errors of botocore into ours.

        Args:
            operation: What is attempted, for the message: ``"read"``, ``"list"``.
            key: The object; empty: the bucket.

        Raises:
            NoAccess: Access was denied.
            NotThere: The bucket or the object does not exist.
            SinkUnavailable: Any other error.
        """
        location = f"{self.url}/{key}" if key else self.url
        failed, hint = f"Could not {operation} {location}", self.access_hint
        try:
            yield
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            message = error.response.get("Error", {}).get("Message") or code
            if code in _DENIED:
                raise NoAccess(
                    f"{failed}: access denied ({message}). Check the permissions of "
                    f"{hint}: ListBucket, GetObject and PutObject on that bucket."
                ) from error
            if code in _MISSING:
                raise NotThere(
                    f"{failed}: it does not exist ({message}). Check the sink's "
                    f"bucket, and region and endpoint of {hint}."
                ) from error
            lacks = f" The store may lack newer checksums: {CHECKSUM_HINT}"
            more = lacks if code in _LACKS_CHECKSUMS else ""
            raise SinkUnavailable(f"{failed}: {code}: {message}{more}") from error
        except (NoCredentialsError, PartialCredentialsError) as error:
            raise NoAccess(
                f"{failed}: {error}. Put credentials into {hint}, or into the "
                "environment of scheduler, workers and triggerer."
            ) from error
        except (BotoCoreError, OSError) as error:
            raise SinkUnavailable(f"{failed}: {error}") from error


def _crc32(content: BinaryIO) -> str:
    """Return the checksum of the rest of a stream, as S3 writes it; rewind it."""
    start, checksum = content.tell(), 0
    while piece := content.read(_PIECE):
        checksum = zlib.crc32(piece, checksum)
    content.seek(start)
    return base64.b64encode(checksum.to_bytes(4, "big")).decode()


def _check_once(client: Any, bucket: str, key: str, url: str) -> None:
    """Check that a store accepts ``If-None-Match``, by a PUT that stores nothing.

    Raises:
        Misconfigured: It does not.
    """
    try:
        client.put_object(
            Bucket=bucket, Key=key, Body=b"", IfNoneMatch="*", ContentMD5=_WRONG_MD5
        )
        # Some stores do not check the MD5 sum, and have stored an empty object.
        client.delete_object(Bucket=bucket, Key=key)
    except ClientError as error:
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if status != _NOT_IMPLEMENTED and status not in _REDIRECTS:
            return  # it accepts the header, and refuses the PUT for another reason
        message = error.response.get("Error", {}).get("Message") or status
        raise Misconfigured(
            f"The store of {url} refused a PUT with the header If-None-Match "
            f"({status}: {message}). Add once=false to the sink, as in "
            f"{url}?once=false. If that does not help: {CHECKSUM_HINT}"
        ) from error


def _end_of_credentials(client: Any) -> float | None:
    """Return when the credentials of a client expire, in seconds since 1970.

    Credentials of a role expire: botocore renews them, but a URL works only as long as
    those that signed it.
    """
    # botocore has no public attribute for either.
    credentials = client._request_signer._credentials  # noqa: SLF001
    end = getattr(credentials, "_expiry_time", None)
    return None if end is None else float(end.timestamp())


def _region_of(aws_conn_id: str, bucket: str, client: Any) -> str | None:
    """Return the region of a bucket; None if the store does not report it."""
    known = _regions.get((aws_conn_id, bucket))
    if known is not None:
        return known
    try:
        response = client.head_bucket(Bucket=bucket)
    except ClientError as error:
        response = error.response  # a refusal reports the region, too
    except (BotoCoreError, OSError):
        return None  # the URL may still work: ``check`` has succeeded before
    headers = response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    region = headers.get("x-amz-bucket-region")
    if region:
        _regions[aws_conn_id, bucket] = region
    return region or None


def shared_s3(
    aws_conn_id: str, region: str | None = None, endpoint: str | None = None
) -> _Client:
    """Return the process's client for an AWS connection.

    Args:
        aws_conn_id: The connection.
        region: A region other than the connection's.
        endpoint: An endpoint other than the connection's.

    Raises:
        Misconfigured: The connection does not exist.
    """

    def make(previous: _Client | None) -> _Client:
        # Imported late: the hook is heavy, and DAG files import this package.
        from airflow.providers.amazon.aws.hooks.s3 import S3Hook  # noqa: PLC0415
        from botocore.config import Config  # noqa: PLC0415

        hook = S3Hook(aws_conn_id=aws_conn_id, region_name=region)
        # Without a connection the hook uses the machine's own credentials. That may be
        # intended, but not if there was a connection before.
        with supervisor_lock:
            has_connection = bool(hook.conn_config)
        if previous is not None and previous.has_connection and not has_connection:
            raise Misconfigured(
                f"AWS connection {aws_conn_id!r} does not exist any more. Create it "
                "again."
            )
        if not has_connection and aws_conn_id != DEFAULT_AWS_CONN_ID:
            raise Misconfigured(
                f"AWS connection {aws_conn_id!r} does not exist. Create it, or name "
                f"none: then {DEFAULT_AWS_CONN_ID!r} is used, or the machine's own "
                "credentials."
            )
        # Options of the connection take precedence over the defaults.
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

    name = f"AWS connection {aws_conn_id!r}"
    if region is not None or endpoint is not None:
        name += f" (region {region}, endpoint {endpoint})"
    return shared_client(name, make)


@dataclass(frozen=True)
class _Client:
    """A boto3 client, and further fields of its AWS connection.

    Attributes:
        boto3: The client.
        has_connection: Whether the connection exists.
        signed_endpoint: Its extra ``signed_endpoint_url``.
    """

    boto3: Any
    has_connection: bool
    signed_endpoint: str | None = None
