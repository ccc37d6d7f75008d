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
