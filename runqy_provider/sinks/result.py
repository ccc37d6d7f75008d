# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""A delivery that was opened: what it says, and its content, perhaps still unread.

Task code that follows runqy's guide stores the bare result as a field, a column or an
object. Our helper does so, too, for a plain JSON value. For anything else (a failure,
bytes, metadata) it stores a delivery, which contains the delivery id.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

from runqy_delivery import Delivery, JobError
from runqy_delivery.json_fields import finite, refuse_constant
from runqy_delivery.wire import FAILED, STATUSES
from runqy_provider.errors import BadDelivery

if TYPE_CHECKING:
    from collections.abc import Callable


JSON_TYPE = "application/json"
BYTES_TYPE = "application/octet-stream"

#: Media type of the manifest of a batch.
MANIFEST_TYPE = "application/x-ndjson"

#: The type ``bytes``, for classes that have a method of that name.
Bytes: TypeAlias = bytes

#: Opens a result that a delivery only names by a URL.
UrlOpener: TypeAlias = "Callable[[Delivery, str], StoredResult]"


@dataclass(frozen=True)
class StoredResult:
    """An opened delivery, whose content is read only when it is needed.

    Attributes:
        uri: Where the content is: ``inbox://...`` or ``s3://...``.
        delivered_at: When it arrived, in seconds since 1970.
        error: Why the job failed; None if it completed.
        content_type: Media type of the content.
        size: Number of bytes, if it is known.
        metadata: What the task code said about the result.
        log: The last lines that the task code logged; None if it sent none.
        opener: Opens the content; each call starts at the first byte. None if the job
            failed.
    """

    uri: str
    delivered_at: float
    error: JobError | None = None
    content_type: str = JSON_TYPE
    size: int | None = None
    metadata: Mapping[str, Any] | None = None
    log: str | None = field(default=None, repr=False)
    opener: Callable[[], BinaryIO] | None = field(default=None, repr=False)

    @classmethod
    def from_failure(
        cls, delivery: Delivery, uri: str, delivered_at: float
    ) -> StoredResult:
        """Return what a delivery of a failed job says."""
        return cls(uri, delivered_at, error=delivery.error, log=delivery.log)

    @classmethod
    def from_delivery(
        cls, delivery: Delivery, uri: str, delivered_at: float
    ) -> StoredResult:
        """Return what a delivery says that carries its result, or its failure.

        Raises:
            BadDelivery: The result is said to be base64 and is not.
        """
        if delivery.status == FAILED:
            return cls.from_failure(delivery, uri, delivered_at)
        if delivery.encoding == "base64":
            data = _decode(delivery.result, uri)
            content_type = delivery.content_type or BYTES_TYPE
        else:
            data = json.dumps(delivery.result, separators=(",", ":")).encode()
            content_type = JSON_TYPE
        fetched = cls.from_bytes(
            data, uri, delivered_at, content_type, metadata=delivery.metadata
        )
        return dataclasses.replace(fetched, log=delivery.log)

    @classmethod
    def from_bytes(
        cls,
        data: Bytes,
        uri: str,
        delivered_at: float,
        content_type: str,
        metadata: Mapping[str, Any] | None = None,
    ) -> StoredResult:
        """Return a result that is in memory already."""
        return cls(
            uri,
            delivered_at,
            content_type=content_type,
            size=len(data),
            metadata=metadata,
            opener=lambda: io.BytesIO(data),
        )

    @property
    def is_json(self) -> bool:
        """Whether the content is a JSON value."""
        return self.content_type.partition(";")[0].strip().lower() == JSON_TYPE

    def stream(self) -> BinaryIO:
        """Return a stream over the bytes; use it as a context manager.

        Raises:
            BadDelivery: The job failed: there is no content.
        """
        if self.opener is None:
            raise BadDelivery(f"{self.uri} holds no result: the job failed.")
        return self.opener()

    def bytes(self) -> Bytes:
        """Return the bytes, all at once."""
        with self.stream() as stream:
            return stream.read()

    def text(self, encoding: str = "utf-8") -> str:
        """Return the bytes as text."""
        return self.bytes().decode(encoding)

    def is_shorter_than(self, size: int) -> bool:
        """Return whether the content has fewer bytes; reads no more than ``size``."""
        with self.stream() as stream:
            return len(stream.read(size)) < size

    def prefetched(self, small: int) -> StoredResult:
        """Return it with its content in memory, if that is JSON and small.

        Args:
            small: In bytes.
        """
        if not self.is_json or self.opener is None or (self.size or small + 1) > small:
            return self
        data = self.bytes()
        return dataclasses.replace(self, opener=lambda: io.BytesIO(data))

    def json(self) -> Any:
        """Return the JSON value.

        Raises:
            BadDelivery: It is not JSON.
        """
        try:
            # Python reads NaN; Airflow's database does not keep it.
            return json.loads(
                self.bytes(), parse_constant=refuse_constant, parse_float=finite
            )
        except (ValueError, RecursionError) as error:
            raise BadDelivery(
                f"{self.uri} says it is {self.content_type} but is not JSON: {error}"
            ) from error


def from_inline_value(
    value: Any,
    uri: str,
    delivered_at: float,
    *,
    delivery_id: str,
    open_url: UrlOpener,
    failed: bool = False,
    is_parsed: bool = False,
) -> StoredResult:
    """Return what a value says that is stored in a field or a column.

    Args:
        value: JSON as text or parsed, a text that is not JSON, or bytes.
        uri: Where it is stored.
        delivered_at: When it was stored, in seconds since 1970.
        delivery_id: Our id of the delivery.
        open_url: Opens the result if the value only names its URL.
        failed: Whether the storage says that the job failed.
        is_parsed: Whether a text is a value, not JSON that has to be parsed.

    Raises:
        BadDelivery: It is a delivery that cannot be read.
    """
    if isinstance(value, (bytes, bytearray, memoryview)):
        data = bytes(value)
        if not failed:
            return StoredResult.from_bytes(data, uri, delivered_at, BYTES_TYPE)
        value = data.decode("utf-8", "replace")
    parsed = value if is_parsed else _parse(value)
    delivery = _delivery(parsed, delivery_id)
    if delivery is not None:
        if delivery.status != FAILED and delivery.result_url is not None:
            return open_url(delivery, delivery.result_url)
        return StoredResult.from_delivery(delivery, uri, delivered_at)
    if failed:
        return StoredResult(uri, delivered_at, error=_error(parsed))
    # JSON text stays as it is, as encoding a large one again takes time.
    is_text = isinstance(value, str) and parsed is not value
    text = value if is_text else json.dumps(parsed, separators=(",", ":"))
    return StoredResult.from_bytes(text.encode(), uri, delivered_at, JSON_TYPE)


def _error(parsed: Any) -> JobError:
    message = parsed if isinstance(parsed, str) else json.dumps(parsed, default=str)
    if parsed is None or not message.strip():
        message = "The task code reported a failure and gave no reason."
    return JobError(message)


def _decode(text: object, uri: str) -> bytes:
    try:
        return base64.b64decode(str(text), validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadDelivery(f"{uri} says it is base64 but is not: {error}") from error


def _parse(value: Any) -> Any:
    """Parse JSON; return a text that is not JSON as it is."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _delivery(parsed: Any, delivery_id: str) -> Delivery | None:
    """Return the delivery that a value is; None if it is a bare result."""
    if not isinstance(parsed, Mapping) or parsed.get("task_id") != delivery_id:
        return None
    if parsed.get("status") not in STATUSES:
        return None
    return Delivery.from_fields(parsed)
