# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The wire format: the delivery request that goes out, the delivery that comes back.

It exists here and nowhere else. In a payload the request stands beside the user's own
fields, under the words of runqy's guide:

    {"input": ..., "task_id": DELIVERY_ID, "webhook_url": URL, "delivery": {...}}

A delivery is a JSON object; the least that runqy's guide sends is a delivery too:

    {"task_id": DELIVERY_ID, "status": "completed", "result": ...}

Unknown fields are ignored on both ways, so that either side may be the newer one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from runqy_delivery import json_fields as fields
from runqy_delivery.errors import BadDelivery

#: Version of the wire format, not of the package. It rises when an old reader would
#: misread a new message; a field that an old reader may ignore does not raise it.
WIRE_VERSION = 1

COMPLETED = "completed"
FAILED = "failed"
PROGRESS = "progress"
STATUSES = (COMPLETED, FAILED, PROGRESS)

#: What a failure says that says nothing.
NO_REASON = "The task code reported a failure and gave no reason."

#: The payload's fields that belong to us.
RESERVED_FIELDS = ("task_id", "webhook_url", "delivery")


@dataclass(frozen=True)
class DeliveryRequest:
    """Where the result of one job is to go.

    Attributes:
        delivery_id: Our id of the delivery, chosen before the job is enqueued.
        sink: Kind of the place that holds the result: ``webhook``, ``s3``, ``gs``,
            ``abfs``, ``file``, ``sql``, ``amqp`` or ``redis_storage``. Other places
            named below are told.
        url: Where the result will lie, for those that are told.
        webhook_url: Where to POST the delivery; a secret, as it is all one needs.
        failure_url: Where to POST a failure, where there is no ``webhook_url``; a
            secret likewise.
        max_bytes: The largest delivery that the holding place takes, in bytes.
        bucket: Bucket, container or folder of the result.
        key: Key of the result in it.
        put_url: Signed URL to PUT the result to.
        put_headers: Headers that this PUT must have.
        failed_key: Key for the delivery of a failure where nobody can be told.
        failed_put_url: Signed URL for ``failed_key``.
        table: Names of a table and its columns; see ``database.write``.
        amqp: Exchange and routing key of a message queue; see ``broker.publish``.
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
        """Return the payload's fields that carry this request; no nulls among them."""
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
        """Read the request out of a payload.

        Args:
            payload: What runqy handed to the task code.

        Returns:
            The request, or None where the payload carries none.

        Raises:
            BadDelivery: There is a request, and it cannot be read, or it is of a
                newer version than this package knows.
        """
        if not isinstance(payload, Mapping) or "delivery" not in payload:
            return None
        inner = payload["delivery"]
        if not isinstance(inner, Mapping) or "version" not in inner:
            return None  # a field of the user's own that happens to have this name
        version = inner["version"]
        if not isinstance(version, int) or version > WIRE_VERSION:
            raise BadDelivery(
                f"The payload asks for a delivery of version {version!r}; this "
                f"runqy-delivery knows versions up to {WIRE_VERSION}. Update "
                "runqy-delivery in the requirements.txt of the task code."
            )
        texts = (
            "sink",
            "url",
            "bucket",
            "key",
            "put_url",
            "failed_key",
            "failed_put_url",
            "failure_url",
        )
        given = {name: inner.get(name) for name in texts}
        given["webhook_url"] = payload.get("webhook_url")
        given["delivery_id"] = payload.get("task_id")
        for name, value in given.items():
            if value is not None and not isinstance(value, str):
                raise BadDelivery(f"{name} in the delivery request is not a text.")
        if not given["delivery_id"]:
            raise BadDelivery("The payload asks for a delivery but has no task_id.")
        max_bytes = inner.get("max_bytes")
        return cls(
            **{name: value for name, value in given.items() if value is not None},
            max_bytes=max_bytes if isinstance(max_bytes, int) else None,
            put_headers=fields.mapping(inner, "put_headers"),
            table=fields.mapping(inner, "table"),
            amqp=fields.mapping(inner, "amqp"),
            version=version,
        )


@dataclass(frozen=True)
class JobError:
    """Why a job failed, in the words of the task code.

    Attributes:
        message: Text of the exception.
        type: Name of its class; None where the task code sent a text only.
        traceback: Where it was raised; None where the task code sent none.
    """

    message: str
    type: str | None = None
    traceback: str | None = None


@dataclass(frozen=True)
class Delivery:
    """One message about one job.

    Attributes:
        delivery_id: The id from the delivery request.
        status: ``completed``, ``failed`` or ``progress``.
        result: The result itself; with ``encoding`` ``base64`` a text of bytes.
        result_url: Where the result lies, if it is not in ``result``.
        error: Why the job failed.
        content_type: Media type of the result; None means JSON.
        encoding: ``base64`` where ``result`` stands for bytes.
        size: Size of the result in bytes, where known.
        metadata: The task code's own words about the result.
        fraction: Of a progress message, how much is done, from 0 to 1.
        text: Of a progress message, what is being done.
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
    version: int = WIRE_VERSION

    @property
    def is_final(self) -> bool:
        """True for the last word about a job: completed or failed."""
        return self.status != PROGRESS

    def to_json(self) -> bytes:
        """Return the delivery as UTF-8 JSON, without its empty fields.

        Raises:
            ValueError: The result is not JSON (NaN is not, either).
            TypeError: The result has a type that JSON does not know.
        """
        body: dict[str, Any] = {"version": self.version, "task_id": self.delivery_id}
        body["status"] = self.status
        if self.error is not None:
            body["error"] = {k: v for k, v in vars(self.error).items() if v is not None}
        if self.status == COMPLETED and self.result_url is None:
            body["result"] = self.result
        optional = (
            "result_url",
            "content_type",
            "encoding",
            "size",
            "metadata",
            "fraction",
            "text",
        )
        for name in optional:
            value = getattr(self, name)
            if value is not None:
                body[name] = value
        return json.dumps(body, allow_nan=False, separators=(",", ":")).encode()

    @classmethod
    def from_json(cls, body: bytes) -> Delivery:
        """Read a delivery.

        Args:
            body: UTF-8 JSON, from our helper or written after runqy's guide.

        Raises:
            BadDelivery: It is not JSON, not an object, or a field has a wrong type.
        """
        try:
            data = json.loads(
                body, parse_constant=fields.refuse_constant, parse_float=fields.finite
            )
        except (ValueError, RecursionError) as error:
            raise BadDelivery(f"The delivery is not JSON: {error}") from error
        return cls.from_fields(data)

    @classmethod
    def from_fields(cls, data: object) -> Delivery:
        """Read a delivery from parsed JSON.

        Raises:
            BadDelivery: It is not an object, or a field has a wrong type.
        """
        if not isinstance(data, Mapping):
            raise BadDelivery("A delivery is a JSON object with task_id and status.")
        version = data.get("version", WIRE_VERSION)
        if type(version) is not int or not 1 <= version <= WIRE_VERSION:
            raise BadDelivery(
                f"The delivery is of version {version!r}; this side knows versions "
                f"up to {WIRE_VERSION}. Update the Airflow provider first."
            )
        status = data.get("status", COMPLETED)
        if status not in STATUSES:
            raise BadDelivery(
                f"status is {status!r}; it must be one of {', '.join(STATUSES)}."
            )
        error = _job_error(data.get("error"))
        if status == FAILED and error is None:
            error = JobError(NO_REASON)
        encoding = fields.text(data, "encoding")
        if encoding not in (None, "base64"):
            raise BadDelivery(f"encoding is {encoding!r}; only base64 is known.")
        return cls(
            delivery_id=fields.text(data, "task_id", required=True) or "",
            status=status,
            result=data.get("result"),
            result_url=fields.text(data, "result_url"),
            error=error,
            content_type=fields.text(data, "content_type"),
            encoding=encoding,
            size=fields.number(data, "size", int, least=0),
            metadata=fields.mapping(data, "metadata"),
            fraction=fields.number(data, "fraction", (int, float)),
            text=fields.text(data, "text"),
            version=version,
        )


def _job_error(value: object) -> JobError | None:
    """Read an error: the guide's plain text, or an object with a message.

    Whatever else it is, it is words about a failure, which must not get lost.

    Raises:
        BadDelivery: It could be read, but not be written again.
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
        words = value if isinstance(value, str) else json.dumps(value, default=str)
    except RecursionError as trouble:
        raise BadDelivery("The error is nested too deeply.") from trouble
    return JobError(words if words.strip() else NO_REASON)
