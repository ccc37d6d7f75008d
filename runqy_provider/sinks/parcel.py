# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""A delivery that was opened: what it says, and its content, maybe still unread."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO

from runqy_provider.errors import BadDelivery

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from runqy_delivery import Delivery, JobError

JSON_TYPE = "application/json"


@dataclass(frozen=True)
class Parcel:
    """An opened delivery.

    Attributes:
        where: Where the content lies: ``inbox://...`` or ``s3://...``.
        error: Why the job failed; None where it completed.
        content_type: Media type of the content.
        size: Bytes of the content, where known.
        metadata: What the task code said about it.
        delivered_at: When it came, in seconds since 1970.
        stream: Opens the content; each call starts anew.
    """

    where: str
    delivered_at: float
    error: JobError | None = None
    content_type: str = JSON_TYPE
    size: int | None = None
    metadata: Mapping[str, Any] | None = None
    stream: Callable[[], BinaryIO] | None = field(default=None, repr=False)

    @classmethod
    def of_failure(cls, delivery: Delivery, where: str, delivered_at: float) -> Parcel:
        """Return the parcel of a failed job."""
        return cls(where=where, delivered_at=delivered_at, error=delivery.error)

    @property
    def is_json(self) -> bool:
        """True where the content is a JSON value."""
        return self.content_type.partition(";")[0].strip().lower() == JSON_TYPE

    def open(self) -> BinaryIO:
        """Return a stream over the content.

        Raises:
            BadDelivery: The job failed: there is no content.
        """
        if self.stream is None:
            raise BadDelivery(f"{self.where} holds no result: the job failed.")
        return self.stream()

    def read(self) -> bytes:
        """Return the content whole."""
        with self.open() as stream:
            return stream.read()

    def value(self) -> Any:
        """Return the content as a JSON value.

        Raises:
            BadDelivery: It is not JSON.
        """
        try:
            return json.loads(self.read())
        except ValueError as error:
            raise BadDelivery(
                f"{self.where} says it is {self.content_type} but is not JSON: {error}"
            ) from error
