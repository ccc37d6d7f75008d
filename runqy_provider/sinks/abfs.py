# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The sink ``abfs://container/prefix``: Azure Blob Storage."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from runqy_provider.errors import Misconfigured
from runqy_provider.sinks.objects.azure_store import AzureStore
from runqy_provider.sinks.objects.sink import ObjectSink

if TYPE_CHECKING:
    from runqy_provider.sinks.base import Access

_CONTAINER = re.compile(r"[a-z0-9](?:-?[a-z0-9]){2,62}")


@dataclass(frozen=True)
class AzureSink(ObjectSink):
    """Results in Azure Blob Storage.

    Args:
        bucket: Name of the container.
        prefix: What names begin with; a job's is ``prefix/delivery_id``.
        presign: Give workers a PUT URL with a SAS, so that they need no credentials.
        wasb_conn_id: The Azure Blob Storage connection.
    """

    scheme: ClassVar[str] = "abfs"
    conn_option: ClassVar[str | None] = "wasb_conn_id"

    wasb_conn_id: str | None = None

    def store(self, access: Access) -> AzureStore:  # noqa: ARG002 - has a connection of its own
        """Return the container."""
        return AzureStore(self.bucket, self.wasb_conn_id or "wasb_default")

    def _check_bucket(self) -> None:
        if not _CONTAINER.fullmatch(self.bucket):
            raise Misconfigured(
                f"{self.bucket!r} is no name for a container of Azure Blob Storage. A "
                "sink there is written abfs://container/prefix; the account is the "
                "connection's."
            )
