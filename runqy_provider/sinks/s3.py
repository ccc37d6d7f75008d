# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The sink ``s3://bucket/prefix``: S3, or whatever speaks its API."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from runqy_provider.errors import Misconfigured
from runqy_provider.sinks.objects.s3_store import S3Store
from runqy_provider.sinks.objects.sink import ObjectSink

if TYPE_CHECKING:
    from runqy_provider.sinks.base import Access

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


@dataclass(frozen=True)
class S3Sink(ObjectSink):
    """Results in S3.

    Args:
        bucket: Name of the bucket.
        prefix: What keys begin with; a job's key is ``prefix/delivery_id``.
        presign: Give workers a presigned PUT URL, so that they need no credentials.
        aws_conn_id: The AWS connection; the runqy connection's where not given.
    """

    scheme: ClassVar[str] = "s3"
    conn_option: ClassVar[str | None] = "aws_conn_id"

    aws_conn_id: str | None = None

    def store(self, access: Access) -> S3Store:
        """Return the bucket."""
        return S3Store(self.bucket, self.aws_conn_id or access.settings.aws_conn_id)

    def _check_bucket(self) -> None:
        if not _BUCKET.fullmatch(self.bucket):
            raise Misconfigured(
                f"{self.bucket!r} is no name for an S3 bucket. A sink in S3 is written "
                "s3://bucket/prefix."
            )
