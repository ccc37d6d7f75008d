# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The sink ``file:///folder``: a folder that workers and Airflow share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, ClassVar

from runqy_provider.errors import Misconfigured
from runqy_provider.sinks.objects.folder_store import FolderStore
from runqy_provider.sinks.objects.sink import ObjectSink
from runqy_provider.sinks.objects.uri import check_name

if TYPE_CHECKING:
    from runqy_provider.sinks.base import Access


@dataclass(frozen=True)
class FileSink(ObjectSink):
    """Results in a folder that workers and Airflow mount at the same path.

    Args:
        bucket: The folder, as an absolute path.
    """

    scheme: ClassVar[str] = "file"

    presign: bool = False

    def store(self, access: Access) -> FolderStore:  # noqa: ARG002 - needs no connection
        """Return the folder."""
        return FolderStore(self.bucket)

    def _check_bucket(self) -> None:
        if self.prefix:
            raise Misconfigured(
                f"A sink in a shared folder has no prefix ({self.prefix!r}): name the "
                f"whole folder, {self.bucket}/{self.prefix}."
            )
        path = PurePosixPath(self.bucket)
        if (
            self.bucket.startswith("//")
            or not path.is_absolute()
            or ".." in path.parts
            or str(path) != self.bucket
        ):
            raise Misconfigured(
                f"{self.bucket!r} is no absolute path. A sink in a shared folder is "
                "written file:///folder."
            )
        check_name(self.bucket)
        if self.presign:
            raise Misconfigured("Nothing can be presigned in a folder.")
