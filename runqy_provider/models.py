# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The records that go from one stage to the next: job, event, reference."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from runqy_provider.errors import Misconfigured

#: XCom key of the return value of a task, the same in all versions of Airflow.
RETURN_KEY = "return_value"

#: XCom key of the job that a task enqueued.
JOB_KEY = "runqy_job"

#: XCom key of the receipt: how the result was delivered.
DELIVERY_KEY = "runqy_delivery"

#: XCom keys under which Airflow's UI finds the links to the result and to runqy.
LINK_KEY = "_link_ResultLink"
QUEUE_LINK_KEY = "_link_QueueLink"

#: What a task returns: see ``RunqyResultHook.collect``.
Returns = Literal["auto", "value", "reference"]
AUTO: Returns = "auto"
VALUE: Returns = "value"
REFERENCE: Returns = "reference"
RETURNS = (AUTO, VALUE, REFERENCE)

#: How a wait can end: kinds of ``DeliveryEvent``.
ARRIVED, DEADLINE, ERROR, SILENT = "arrived", "deadline", "error", "silent"

#: Fields that every reference has.
_REQUIRED = ("uri", "content_type", "delivery_id")


@dataclass(frozen=True, slots=True)
class JobRef:
    """One job and its delivery. Plain JSON in the XCom ``runqy_job``.

    Attributes:
        delivery_id: Our id of the delivery.
        sink: URI of the sink that the result goes to.
        job_id: runqy's id of the job; None if it is not known.
        runqy_queue: Full name of the job's queue; None if it is not known.
        enqueued_at: When the job was enqueued, in seconds since 1970; 0 if it is not
            known.
    """

    delivery_id: str
    sink: str = ""
    job_id: str | None = None
    runqy_queue: str | None = None
    enqueued_at: float = 0.0

    def to_xcom(self) -> dict[str, Any]:
        """Return the job as plain JSON."""
        return {**asdict(self), "job_id": self.job_id or ""}

    @classmethod
    def from_xcom(cls, value: Mapping[str, Any]) -> JobRef:
        """Read the job that a task enqueued, as ``to_xcom`` wrote it."""
        return cls(**{**value, "job_id": value["job_id"] or None})

    def require_job(self) -> tuple[str, str]:
        """Return the queue and runqy's id, for a sink that needs both.

        Raises:
            Misconfigured: One of them is not known.
        """
        if self.runqy_queue is None or self.job_id is None:
            raise Misconfigured(
                f"The sink {self.sink!r} needs the job's id and queue to look for its "
                "result: give job_id and runqy_queue to the sensor."
            )
        return self.runqy_queue, self.job_id


@dataclass(frozen=True)
class DeliveryEvent:
    """How a wait ended. Plain JSON in the payload of the trigger's event.

    Attributes:
        job: The job that was waited for.
        kind: ARRIVED, DEADLINE, ERROR or SILENT.
        status: Of a delivery that has arrived: ``completed`` or ``failed``.
        result_uri: Where that delivery is.
        delivered_at: When it arrived, in seconds since 1970.
        error: Of an ERROR: name of the error's class in ``runqy_provider.errors``.
        message: Message of that error.
        progress: Last progress that the task code reported.
        last_poll: When a source was last polled with success, in seconds since 1970.
        last_error: Why the last poll failed; empty if it did not.
        unreadable_because: Why sources that may hold the result cannot be polled; empty
            if all can.
        last_sign: When the job last gave a sign of life, in seconds since 1970.
        refusal: Why a delivery of the job was refused; empty if none was.
    """

    job: JobRef
    kind: str
    status: str = ""
    result_uri: str = ""
    delivered_at: float = 0.0
    error: str = ""
    message: str = ""
    progress: str = ""
    last_poll: float | None = None
    last_error: str = ""
    unreadable_because: str = ""
    last_sign: float | None = None
    refusal: str = ""

    def to_payload(self) -> dict[str, Any]:
        """Return the event as plain JSON; empty fields are left out."""
        fields = {
            name: getattr(self, name)
            for name in _event_fields()
            if getattr(self, name) not in ("", None, 0.0)
        }
        return {**asdict(self.job), **fields}

    @classmethod
    def from_payload(cls, payload: Mapping[str, Any]) -> DeliveryEvent:
        """Read an event, as ``to_payload`` wrote it.

        Raises:
            Misconfigured: It lacks a field that every event has.
        """
        try:
            job = JobRef(**{name: payload[name] for name in _names(JobRef)})
            return cls(job, **{k: payload[k] for k in _event_fields() if k in payload})
        except (KeyError, TypeError) as error:
            raise Misconfigured(
                f"The event of the trigger cannot be read ({error!r}). Do triggerer "
                "and worker run the same version of airflow-provider-runqy?"
            ) from error


def _names(kind: type[Any]) -> list[str]:
    return [field.name for field in dataclasses.fields(kind)]


def _event_fields() -> list[str]:
    """Return the names of the fields of an event, except its job."""
    return _names(DeliveryEvent)[1:]


@dataclass(frozen=True)
class Reference:
    """Where a result is. Plain JSON in XCom; ``RunqyResultHook.read`` opens it.

    Attributes:
        uri: ``s3://bucket/key``, ``inbox://conn_id/delivery_id``, and so on.
        content_type: Media type of the result.
        size: Number of bytes, if it is known.
        delivery_id: The delivery that the result came with.
        metadata: What the task code said about the result.
        runqy_conn_id: The runqy connection that the job was enqueued through; None if
            the reference does not name it.
    """

    uri: str
    content_type: str
    size: int | None
    delivery_id: str
    metadata: Mapping[str, Any] | None = None
    runqy_conn_id: str | None = None

    def to_xcom(self) -> dict[str, Any]:
        """Return the reference as plain JSON."""
        return asdict(self)

    @classmethod
    def from_xcom(cls, value: object) -> Reference:
        """Read a reference back from XCom.

        Raises:
            Misconfigured: The value is not a reference (the result was small enough
                to be the XCom's value, or it comes from another task).
        """
        if isinstance(value, cls):
            return value
        if not isinstance(value, Mapping) or not looks_like_reference(value):
            raise Misconfigured(
                f"This {type(value).__name__} is not a reference. A small JSON result "
                "is the value of the XCom: use it as it is, or ask is_reference() "
                "first."
            )
        return cls(
            uri=str(value["uri"]),
            content_type=str(value["content_type"]),
            size=value.get("size"),
            delivery_id=str(value["delivery_id"]),
            metadata=value.get("metadata"),
            runqy_conn_id=value.get("runqy_conn_id"),
        )


def is_reference(value: object) -> bool:
    """Return whether a value is a reference, as tasks return for large results."""
    names = set(_names(Reference))
    # A reference that was made by hand may have no connection.
    return isinstance(value, Mapping) and {*value, "runqy_conn_id"} == names


def looks_like_reference(value: object) -> bool:
    """Return whether a value would be read as a reference."""
    return isinstance(value, Mapping) and all(name in value for name in _REQUIRED)
