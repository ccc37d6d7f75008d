# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Validation of a payload against the input schema of its queue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runqy_sandbox.server.go_json import kind

if TYPE_CHECKING:
    from runqy_sandbox.queues import Field


class SchemaError(ValueError):
    """The payload does not match the schema; the message is runqy's."""


def apply_schema(payload: dict[str, Any], fields: tuple[Field, ...]) -> dict[str, Any]:
    """Validate a payload and return it with defaults; unknown fields are kept.

    Raises:
        SchemaError: A required field is missing, or a field has the wrong type.
    """
    filled = dict(payload)
    for field in fields:
        if field.name in filled:
            _check(field, filled[field.name])
        elif field.required:
            raise SchemaError(f"{field.name} is required")
        elif field.default is not None:
            filled[field.name] = field.default
    return filled


def _check(field: Field, value: Any) -> None:
    if not _type_names(value) & set(field.types):
        raise SchemaError(
            f"field '{field.name}' has type {kind(value)}, "
            f"expected one of: {', '.join(field.types)}"
        )


def _type_names(value: Any) -> set[str]:
    """Return the names that a schema has for the type of a JSON value."""
    if kind(value) == "number":
        return {"int", "float"} if float(value).is_integer() else {"float"}
    return {kind(value)}
