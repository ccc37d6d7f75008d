# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The sink ``gs://bucket/prefix``: Google Cloud Storage."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from runqy_provider.errors import Misconfigured
from runqy_provider.sinks.objects.google_store import GoogleStore
from runqy_provider.sinks.objects.sink import ObjectSink

if TYPE_CHECKING:
    from runqy_provider.sinks.base import Access

_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")


@dataclass(frozen=True)
class GcsSink(ObjectSink):
    """Results in Google Cloud Storage.

    Args:
        bucket: Name of the bucket.
        prefix: What names begin with; a job's is ``prefix/delivery_id``.
        presign: Give workers a signed PUT URL, so that they need no credentials.
        gcp_conn_id: The Google Cloud connection.
    """

    scheme: ClassVar[str] = "gs"
    conn_option: ClassVar[str | None] = "gcp_conn_id"

    gcp_conn_id: str | None = None

    def store(self, access: Access) -> GoogleStore:  # noqa: ARG002 - has a connection of its own
        """Return the bucket."""
        return GoogleStore(self.bucket, self.gcp_conn_id or "google_cloud_default")

    def _check_bucket(self) -> None:
        if not _BUCKET.fullmatch(self.bucket):
            raise Misconfigured(
                f"{self.bucket!r} is no name for a bucket of Google Cloud Storage. A "
                "sink there is written gs://bucket/prefix."
            )
