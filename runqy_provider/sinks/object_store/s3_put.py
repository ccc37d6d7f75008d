# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Options of a PUT to S3: no overwriting, and what the bucket's policy requires."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class S3Put:
    """Options of a PUT besides its bucket and key.

    Attributes:
        once: Refuse the PUT if an object exists already.
        sse: Server-side encryption.
        kms_key_id: The KMS key.
        acl: A canned ACL.
    """

    once: bool = True
    sse: str | None = None
    kms_key_id: str | None = None
    acl: str | None = None

    def _rows(self) -> list[tuple[str, str, str | None]]:
        """Return the options: boto3's name, name of the header, value."""
        return [
            ("IfNoneMatch", "If-None-Match", "*" if self.once else None),
            ("ServerSideEncryption", "x-amz-server-side-encryption", self.sse),
            (
                "SSEKMSKeyId",
                "x-amz-server-side-encryption-aws-kms-key-id",
                self.kms_key_id,
            ),
            ("ACL", "x-amz-acl", self.acl),
        ]

    @property
    def parameters(self) -> dict[str, str]:
        """The options as boto3 takes them; it signs them."""
        return {name: value for name, _, value in self._rows() if value is not None}

    @property
    def headers(self) -> dict[str, str] | None:
        """Headers that the PUT must have, as they are signed; None: no headers."""
        given = {name: value for _, name, value in self._rows() if value is not None}
        return given or None
