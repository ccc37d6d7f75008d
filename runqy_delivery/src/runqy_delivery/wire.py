# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The wire format: the delivery request in a payload, and the delivery that answers it.

It is defined in this module only. In a payload, the request is next to the user's
fields, under the field names of runqy's guide:

    {"input": ..., "task_id": DELIVERY_ID, "webhook_url": URL, "delivery": {...}}

A delivery is a JSON object. The minimal message of runqy's guide is a valid delivery:

    {"task_id": DELIVERY_ID, "status": "completed", "result": ...}

Unknown fields are ignored in both directions, so either side may be updated first.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from runqy_delivery.errors import BadDelivery
from runqy_delivery.json_fields import (
    finite,
    read_mapping,
    read_number,
    read_text,
    refuse_constant,
)

#: Version of the wire format, not of the package. It is incremented when an old reader
#: would misread a new message, but not for a new field that an old reader may ignore.
WIRE_VERSION = 1

COMPLETED = "completed"
FAILED = "failed"
PROGRESS = "progress"
STATUSES = (COMPLETED, FAILED, PROGRESS)

#: The message of a failure for which the task code gave none.
NO_REASON = "The task code reported a failure and gave no reason."

#: The payload fields that carry a delivery request; task code does not see them.
RESERVED_FIELDS = ("task_id", "webhook_url", "delivery")

#: Optional fields of a delivery, which are left out of its JSON if they are None.
_OPTIONAL = (
    "result_url",
    "content_type",
    "encoding",
    "size",
    "metadata",
    "fraction",
    "text",
    "log",
)

#: Made once: ``json.loads`` would make one for each delivery.
_DECODER = json.JSONDecoder(parse_constant=refuse_constant, parse_float=finite)

#: String fields of a delivery request, in the payload's field ``delivery``.
_TEXTS = (
    "sink",
    "url",
    "bucket",
    "key",
    "put_url",
    "failed_key",
    "failed_put_url",
    "failure_url",
)


@dataclass(frozen=True)
class DeliveryRequest:
    """Where the result of one job is to be delivered.

    Attributes:
        delivery_id: Id of the delivery, chosen before the job is enqueued.
        sink: Kind of the sink that gets the result: ``webhook``, ``s3``, ``gs``,
            ``abfs``, ``file``, ``sql``, ``amqp`` or ``redis_storage``. The other sinks
            that the fields below name get a notification.
        url: URI of the result, for notifications.
        webhook_url: URL to POST the delivery to; a secret, because it authorizes that.
        failure_url: URL to POST a failure to if there is no ``webhook_url``; a
            secret, because it authorizes that.
        max_bytes: The largest delivery that the sink accepts, in bytes.
        bucket: Bucket, container or folder of the result.
        key: Key of the result in the bucket.
        put_url: Signed URL to PUT the result to; a secret.
        put_headers: Headers that this PUT must have.
        failed_key: Key for the delivery of a failure if the request names object
            stores only.
        failed_put_url: Signed URL for ``failed_key``; a secret.
        table: Names of a table and its columns; see ``sinks.sql.write``.
        amqp: Exchange and routing key of a message queue; see ``sinks.amqp.publish``.
        version: Version of the wire format.
    """

    delivery_id: str
    sink: str = "webhook"
    url: str | None = None
    webhook_url: str | None = field(default=None, repr=False)
    failure_url: str | None = field(default=None, repr=False)
    max_bytes: int | None = None
    bucket: str | None = None
    key: str | None = None
    put_url: str | None = field(default=None, repr=False)
    put_headers: Mapping[str, str] | None = None
    failed_key: str | None = None
    failed_put_url: str | None = field(default=None, repr=False)
    table: Mapping[str, str] | None = None
    amqp: Mapping[str, str] | None = None
    version: int = WIRE_VERSION

    def to_fields(self) -> dict[str, Any]:
        """Return the payload fields that carry this request; nulls are left out."""
        inner = {
            name: value
            for name, value in vars(self).items()
            if name not in ("delivery_id", "webhook_url") and value is not None
        }
        outer: dict[str, Any] = {"task_id": self.delivery_id, "delivery": inner}
        if self.webhook_url is not None:
            outer["webhook_url"] = self.webhook_url
        return outer

    @classmethod
    def from_payload(cls, payload: object) -> DeliveryRequest | None:
        """Read the delivery request of a payload.

        Args:
            payload: The payload that runqy passed to the task code.

        Returns:
            The request, or None if the payload has none.

        Raises:
            BadDelivery: The request cannot be read, or has a newer version of the wire
                format than this package supports.
        """
        if not isinstance(payload, Mapping) or "delivery" not in payload:
            return None
        inner = payload["delivery"]
        if not isinstance(inner, Mapping) or "version" not in inner:
            return None  # a field of the user that happens to be called "delivery"
        version = inner["version"]
        if not isinstance(version, int) or version > WIRE_VERSION:
            raise BadDelivery(
                f"The delivery request in the payload has wire version {version!r}; "
                f"this runqy-delivery supports versions up to {WIRE_VERSION}. Update "
                "runqy-delivery in the requirements.txt of the task code."
            )
        max_bytes = inner.get("max_bytes")
        return cls(
            **_request_texts(payload, inner),
            max_bytes=max_bytes if isinstance(max_bytes, int) else None,
            put_headers=read_mapping(inner, "put_headers"),
            table=read_mapping(inner, "table"),
            amqp=read_mapping(inner, "amqp"),
            version=version,
        )


@dataclass(frozen=True)
class JobError:
    """Why a job failed, as the task code reports it.

    Attributes:
        message: Message of the exception.
        type: Name of the exception's class; None if the task code sent only a text.
        traceback: Formatted traceback; None if the task code sent none.
    """

    message: str
    type: str | None = None
    traceback: str | None = None


@dataclass(frozen=True)
class Delivery:
    """One message about one job: its result, its failure, or its progress.

    Attributes:
        delivery_id: The id from the delivery request.
        status: ``completed``, ``failed`` or ``progress``.
        result: The result; if ``encoding`` is ``base64``, its bytes in base64.
        result_url: URI of the result, if it is not in ``result``.
        error: Why the job failed; None unless it did.
        content_type: Media type of the result; None means JSON.
        encoding: ``base64`` if ``result`` is base64; None if it is JSON.
        size: Size of the result in bytes; None if it is not known.
        metadata: JSON object about the result, from the task code.
        fraction: In a progress message, how much is done, from 0 to 1.
        text: In a progress message, what is being done.
        log: The last lines that the task code logged; it differs between two runs of
            the same job.
        version: Version of the wire format.
    """

    delivery_id: str
    status: str = COMPLETED
    result: Any = None
    result_url: str | None = None
    error: JobError | None = None
    content_type: str | None = None
    encoding: str | None = None
    size: int | None = None
    metadata: Mapping[str, Any] | None = None
    fraction: float | None = None
    text: str | None = None
    log: str | None = None
    version: int = WIRE_VERSION

    @property
    def is_final(self) -> bool:
        """True for the last delivery of a job: completed or failed."""
        return self.status != PROGRESS

    def to_json(self) -> bytes:
        """Return the delivery as UTF-8 JSON; fields that are None are left out.

        Raises:
            ValueError: The result contains NaN or an infinity, which are not JSON.
            TypeError: The result contains a type that JSON does not support.
        """
        body: dict[str, Any] = {"version": self.version, "task_id": self.delivery_id}
        body["status"] = self.status
        if self.error is not None:
            body["error"] = {k: v for k, v in vars(self.error).items() if v is not None}
        if self.status == COMPLETED and self.result_url is None:
            body["result"] = self.result
        for name in _OPTIONAL:
            value = getattr(self, name)
            if value is not None:
                body[name] = value
        return json.dumps(body, allow_nan=False, separators=(",", ":")).encode()

    @classmethod
    def from_json(cls, body: bytes) -> Delivery:
        """Read a delivery from JSON.

        Args:
            body: UTF-8 JSON, written by this package or as runqy's guide describes.

        Raises:
            BadDelivery: It is not JSON, not an object, or a field is not valid.
        """
        try:
            text = body.decode(json.detect_encoding(body), "surrogatepass")
            data = _DECODER.decode(text)
        except (ValueError, RecursionError) as error:
            raise BadDelivery(f"The delivery is not JSON: {error}") from error
        return cls.from_fields(data)

    @classmethod
    def from_fields(cls, data: object) -> Delivery:
        """Read a delivery from parsed JSON.

        Raises:
            BadDelivery: It is not an object, or a field is not valid.
        """
        if not isinstance(data, Mapping):
            raise BadDelivery(
                "The delivery is not valid: it must be a JSON object with task_id and "
                "status."
            )
        version = data.get("version", WIRE_VERSION)
        if type(version) is not int or not 1 <= version <= WIRE_VERSION:
            raise BadDelivery(
                f"The delivery has wire version {version!r}; the Airflow side supports "
                f"versions up to {WIRE_VERSION}. Update the Airflow provider."
            )
        status = data.get("status", COMPLETED)
        if status not in STATUSES:
            raise BadDelivery(
                f"status is {status!r}; it must be one of {', '.join(STATUSES)}."
            )
        error = _job_error(data.get("error"))
        if status == FAILED and error is None:
            error = JobError(NO_REASON)
        # Not refused: a log that cannot be read must not cost the result.
        log = data.get("log")
        encoding = read_text(data, "encoding")
        if encoding not in (None, "base64"):
            raise BadDelivery(f"encoding is {encoding!r}; only base64 is supported.")
        return cls(
            delivery_id=read_text(data, "task_id", required=True) or "",
            status=status,
            result=data.get("result"),
            result_url=read_text(data, "result_url"),
            error=error,
            content_type=read_text(data, "content_type"),
            encoding=encoding,
            size=read_number(data, "size", int, least=0),
            metadata=read_mapping(data, "metadata"),
            fraction=read_number(data, "fraction", (int, float)),
            text=read_text(data, "text"),
            log=log if isinstance(log, str) else None,
            version=version,
        )


def _request_texts(
    payload: Mapping[str, Any], inner: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the string fields of a delivery request; missing ones are left out.

    Args:
        payload: The payload.
        inner: The payload's field ``delivery``.

    Raises:
        BadDelivery: One of them is not a string, or there is no delivery id.
    """
    texts = {name: inner.get(name) for name in _TEXTS}
    texts["webhook_url"] = payload.get("webhook_url")
    texts["delivery_id"] = payload.get("task_id")
    for name, value in texts.items():
        if value is not None and not isinstance(value, str):
            raise BadDelivery(
                f"{name} in the delivery request must be a string, not "
                f"{type(value).__name__}."
            )
    if not texts["delivery_id"]:
        raise BadDelivery("The payload has a delivery request, but no task_id.")
    return {name: value for name, value in texts.items() if value is not None}


def _job_error(value: object) -> JobError | None:
    """Read the error of a failure: a string as in runqy's guide, or an object.

    Any other JSON value becomes the message, so that a failure is never lost.

    Raises:
        BadDelivery: The error is nested too deeply to be written as JSON again.
    """
    if value is None:
        return None
    if isinstance(value, Mapping):
        message, *others = (value.get(key) for key in ("message", "type", "traceback"))
        kind, lines = (one if isinstance(one, str) else None for one in others)
        if isinstance(message, str) and message.strip():
            return JobError(message, kind, lines)
        if set(value) <= {"message", "type", "traceback"}:
            return JobError(NO_REASON, kind, lines)
    try:
        text = value if isinstance(value, str) else json.dumps(value, default=str)
    except RecursionError as error:
        raise BadDelivery("The error is nested too deeply.") from error
    return JobError(text if text.strip() else NO_REASON)
