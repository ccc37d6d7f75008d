# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""A result that is too large for XCom: where it lies, and what it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from runqy_provider.errors import Misconfigured

#: Fields without which nothing is taken for a reference.
_READ = ("uri", "content_type", "delivery_id")


@dataclass(frozen=True)
class Reference:
    """Where a result lies. Plain JSON in XCom; ``RunqyResultHook.read`` opens it.

    Attributes:
        uri: ``s3://bucket/key``, ``inbox://conn_id/delivery_id``, and so on.
        content_type: Media type of the bytes.
        size: Their number, where known.
        delivery_id: The delivery they came with.
        metadata: What the task code said about them.
    """

    uri: str
    content_type: str
    size: int | None
    delivery_id: str
    metadata: Mapping[str, Any] | None = None

    def to_xcom(self) -> dict[str, Any]:
        """Return the reference as plain JSON."""
        return asdict(self)

    @classmethod
    def from_xcom(cls, value: object) -> Reference:
        """Read a reference back from XCom.

        Raises:
            Misconfigured: The value is no reference (the result was small enough to
                stand in XCom as it is, or it comes from another task).
        """
        if isinstance(value, cls):
            return value
        if not isinstance(value, Mapping) or not could_pass_for_reference(value):
            raise Misconfigured(
                f"This is no reference but a {type(value).__name__}. A small JSON "
                "result stands in XCom as its value: use it as it is, or ask "
                "is_reference() first."
            )
        return cls(
            uri=str(value["uri"]),
            content_type=str(value["content_type"]),
            size=value.get("size"),
            delivery_id=str(value["delivery_id"]),
            metadata=value.get("metadata"),
        )


def is_reference(value: object) -> bool:
    """True for what a task leaves in XCom when its result is large."""
    return isinstance(value, Mapping) and set(value) == set(
        Reference.__dataclass_fields__
    )


def could_pass_for_reference(value: object) -> bool:
    """True for a value that would be read as a reference."""
    return isinstance(value, Mapping) and all(name in value for name in _READ)


@dataclass(frozen=True)
class Ticket:
    """The ids of one job and its delivery.

    Attributes:
        delivery_id: Ours.
        job_id: runqy's, where known.
        runqy_queue: Full name of the job's queue, where known.
    """

    delivery_id: str
    job_id: str | None = None
    runqy_queue: str | None = None

    def job(self, sink: str) -> tuple[str, str]:
        """Return the queue and the job's id, for a sink that cannot do without.

        Args:
            sink: The sink's URI, for the message.

        Raises:
            Misconfigured: One of them is not known.
        """
        if self.runqy_queue is None or self.job_id is None:
            raise Misconfigured(
                f"The sink {sink!r} needs the job's id and queue to look for its "
                "result: give job_id and runqy_queue to the sensor."
            )
        return self.runqy_queue, self.job_id


@dataclass(frozen=True)
class Submission:
    """A job that was enqueued, and how its result is asked for. Plain JSON in XCom.

    Attributes:
        job_id: runqy's id.
        delivery_id: Ours.
        runqy_queue: Full name of the queue.
        sink: The sink's URI.
        enqueued_at: When we asked for it, in seconds since 1970.
    """

    job_id: str
    delivery_id: str
    runqy_queue: str
    sink: str
    enqueued_at: float

    def to_xcom(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return asdict(self)
