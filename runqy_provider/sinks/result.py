# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""A delivery that was opened: what it says, and its content, maybe still unread."""

from __future__ import annotations

import base64
import binascii
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO

from runqy_delivery import Delivery, JobError
from runqy_delivery.json_fields import finite, refuse_constant
from runqy_delivery.wire import FAILED, STATUSES
from runqy_provider.errors import BadDelivery

if TYPE_CHECKING:
    from collections.abc import Callable

    from runqy_provider.sinks.base import Follow

JSON_TYPE = "application/json"
BYTES_TYPE = "application/octet-stream"


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

    @classmethod
    def of_delivery(cls, delivery: Delivery, where: str, delivered_at: float) -> Parcel:
        """Return the parcel of a delivery that carries its result, or its failure.

        Raises:
            BadDelivery: The result says that it is base64, and is not.
        """
        if delivery.status == FAILED:
            return cls.of_failure(delivery, where, delivered_at)
        if delivery.encoding == "base64":
            data = _decode(delivery.result, where)
            content_type = delivery.content_type or BYTES_TYPE
        else:
            data = json.dumps(delivery.result, separators=(",", ":")).encode()
            content_type = JSON_TYPE
        return cls.of_bytes(
            data, where, delivered_at, content_type, metadata=delivery.metadata
        )

    @classmethod
    def of_bytes(
        cls,
        data: bytes,
        where: str,
        delivered_at: float,
        content_type: str,
        metadata: Mapping[str, Any] | None = None,
    ) -> Parcel:
        """Return the parcel of a result that is at hand."""
        return cls(
            where=where,
            delivered_at=delivered_at,
            content_type=content_type,
            size=len(data),
            metadata=metadata,
            stream=lambda: io.BytesIO(data),
        )

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

    def is_shorter_than(self, size: int) -> bool:
        """Tell whether the content has fewer bytes, without reading more than those."""
        with self.open() as stream:
            return len(stream.read(size)) < size

    def value(self) -> Any:
        """Return the content as a JSON value.

        Raises:
            BadDelivery: It is not JSON.
        """
        try:
            # Python reads NaN; Airflow's database does not keep it.
            return json.loads(
                self.read(), parse_constant=refuse_constant, parse_float=finite
            )
        except (ValueError, RecursionError) as error:
            raise BadDelivery(
                f"{self.where} says it is {self.content_type} but is not JSON: {error}"
            ) from error


def _decode(text: object, where: str) -> bytes:
    try:
        return base64.b64decode(str(text), validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadDelivery(f"{where} says it is base64 but is not: {error}") from error


def parcel_of_value(
    value: Any,
    where: str,
    delivered_at: float,
    *,
    delivery_id: str,
    follow: Follow,
    failed: bool = False,
    is_parsed: bool = False,
) -> Parcel:
    """Return what a stored value says.

    Args:
        value: JSON as text or already read, a text that is no JSON, or bytes.
        where: Where it stands.
        delivered_at: Since when, in seconds since 1970.
        delivery_id: Our id of the delivery.
        follow: Opens a result of which the value says that it lies elsewhere.
        failed: True where the storage says that the job failed.
        is_parsed: True where a text is a value, not JSON that is still to be read.

    Raises:
        BadDelivery: It is a delivery that cannot be read.
    """
    if isinstance(value, (bytes, bytearray, memoryview)):
        data = bytes(value)
        if not failed:
            return Parcel.of_bytes(data, where, delivered_at, BYTES_TYPE)
        value = data.decode("utf-8", "replace")
    read = value if is_parsed else _read(value)
    delivery = _delivery(read, delivery_id)
    if delivery is not None:
        if delivery.status != FAILED and delivery.result_url is not None:
            return follow(delivery, delivery.result_url)
        return Parcel.of_delivery(delivery, where, delivered_at)
    if failed:
        words = read if isinstance(read, str) else json.dumps(read, default=str)
        if read is None or not words.strip():
            words = "The task code reported a failure and gave no reason."
        failure = Delivery(delivery_id, status=FAILED, error=JobError(words))
        return Parcel.of_failure(failure, where, delivered_at)
    # As it stands, where it is JSON text already: a large one is not written again.
    is_text = isinstance(value, str) and read is not value
    text = value if is_text else json.dumps(read, separators=(",", ":"))
    return Parcel.of_bytes(text.encode(), where, delivered_at, JSON_TYPE)


def _read(value: Any) -> Any:
    """Read JSON; a text that is none stands for itself."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _delivery(read: Any, delivery_id: str) -> Delivery | None:
    """Return the delivery that a value is, if it is one."""
    if not isinstance(read, Mapping) or read.get("task_id") != delivery_id:
        return None
    if read.get("status") not in STATUSES:
        return None
    return Delivery.from_fields(read)
