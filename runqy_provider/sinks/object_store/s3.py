# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The sink ``s3://bucket/prefix``: S3, or a store with its API."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from runqy_provider.errors import Misconfigured
from runqy_provider.sinks.object_store.base import S3Put
from runqy_provider.sinks.object_store.object_sink import ObjectSink
from runqy_provider.sinks.object_store.s3_store import S3Store

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runqy_provider.settings import Settings

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


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
    conn_option: ClassVar[str | None] = "aws_conn_id"

    more_options: ClassVar[tuple[str, ...]] = (
        "once",
        "sse",
        "kms_key_id",
        "acl",
        "signed_endpoint",
    )

    aws_conn_id: str | None = None
    once: bool = True
    sse: str | None = None
    kms_key_id: str | None = None
    acl: str | None = None
    signed_endpoint: str | None = None

    @classmethod
    def more_from(cls, options: Mapping[str, str]) -> dict[str, Any]:
        """Return the arguments that the options of an S3 sink stand for."""
        more: dict[str, Any] = super().more_from(options)
        if "once" in more:
            if more["once"] not in ("true", "false"):
                raise Misconfigured(
                    f"once of a sink must be true or false, not {more['once']!r}."
                )
            more["once"] = more["once"] == "true"
        return more

    @property
    def more_in_uri(self) -> Mapping[str, str]:
        """The options that differ from their defaults."""
        texts = {name: getattr(self, name) for name in self.more_options[1:]}
        given = {name: str(value) for name, value in texts.items() if value}
        return given if self.once else {"once": "false", **given}

    def store(self, settings: Settings) -> S3Store:
        return S3Store(
            self.bucket,
            self.aws_conn_id or settings.connection.aws_conn_id,
            S3Put(self.once and self.presign, self.sse, self.kms_key_id, self.acl),
            self.signed_endpoint,
        )

    def _check_bucket(self) -> None:
        if not _BUCKET.fullmatch(self.bucket):
            raise Misconfigured(
                f"{self.bucket!r} is not a valid name of an S3 bucket. Write the sink "
                "as s3://bucket/prefix."
            )
