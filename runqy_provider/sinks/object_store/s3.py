# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The sink ``s3://bucket/prefix``: S3, or a store with its API."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from runqy_provider.sinks.object_store.base import S3Put
from runqy_provider.sinks.object_store.object_sink import ObjectSink
from runqy_provider.sinks.object_store.s3_store import S3Store

if TYPE_CHECKING:
    from runqy_provider.settings import Settings


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
